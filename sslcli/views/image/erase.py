"""Random erasing: a rectangle of every sample set to 0 (Zhong et al. 2017, arXiv:1708.04896)."""

from __future__ import annotations

import torch
from torch import Tensor


def erase(x: Tensor, rectangle: Tensor) -> None:
    """Set the pixels of ``rectangle`` (B, 4), top, left, height and width, to 0 in ``x`` (B, C, H, W), in place."""
    top, left, height, width = (side[:, None] for side in rectangle.unbind(1))
    row = torch.arange(x.shape[2], device=x.device)
    column = torch.arange(x.shape[3], device=x.device)
    rows = (row >= top) & (row < top + height)
    columns = (column >= left) & (column < left + width)
    x.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0)
