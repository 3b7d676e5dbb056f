"""Rotation of a batch, each sample by its own angle."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def rotated(x: Tensor, degrees: Tensor) -> Tensor:
    """Rotate images (B, C, H, W) counter-clockwise about their centres by ``degrees`` (B,), bilinear, 0 outside.

    Equals ``torchvision.transforms.v2.functional.rotate``, except that edges fade to 0 over the width of a pixel.
    """
    height, width = x.shape[-2:]
    angle = degrees * (math.pi / 180)
    cos, sin, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    # Grid coordinates run from -1 to 1 along both sides; the factors make this a rotation in pixels.
    to_x = torch.stack([cos, -sin * (height / width), zero], 1)
    to_y = torch.stack([sin * (width / height), cos, zero], 1)
    grid = F.affine_grid(torch.stack([to_x, to_y], 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
