"""Where to hide: random masks with an exact number of hidden patches in every sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslcli.randomness import Randomness


def random_patches(randomness: Randomness, rows: int, cols: int, ratio: float) -> Tensor:
    """(B, rows, cols) bool, True is hidden: ceil(ratio * rows * cols) patches a sample (SimMIM, section 3.2)."""
    count = math.ceil(rows * cols * ratio)
    noise = randomness.uniform("mask", rows * cols)
    mask = torch.zeros_like(noise, dtype=torch.bool)
    mask.scatter_(1, noise.argsort(dim=1)[:, :count], True)
    return mask.unflatten(1, (rows, cols))


def scaled_to(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask (B, rows, cols) at a finer grid (B, height, width), each patch repeated."""
    return mask.repeat_interleave(height // mask.shape[1], 1).repeat_interleave(width // mask.shape[2], 2)
