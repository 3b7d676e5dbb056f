"""Rotation of a batch, each sample by its own angle."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def rotated(x: Tensor, degrees: Tensor) -> Tensor:
    """Images (B, C, H, W) turned counter-clockwise about their centres by ``degrees`` (B,), bilinear, 0 outside.

    As ``torchvision.transforms.v2.functional.rotate``, but that an edge fades over a pixel into what is outside.
    """
    height, width = x.shape[-2:]
    angle = degrees * (math.pi / 180)
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # The grid runs from -1 to 1 along either side, whatever the sides' lengths: the turn is made in pixels.
    across = torch.stack([cos, -sin * (height / width), zero], 1)
    down = torch.stack([sin * (width / height), cos, zero], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
