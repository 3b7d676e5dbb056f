"""What a masked model predicts: the pixels, or the pixels without their local brightness and contrast."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-6  # added to each variance, as published


def target_function(name: str, patch: int, window: int) -> Callable[[Tensor], Tensor]:
    """The function (B, C, H, W) -> (B, C, H, W) called ``name``; ``patch`` and ``window`` are pixels a side."""
    table: dict[str, Callable[[Tensor], Tensor]] = {
        "none": Tensor.float,
        "patch": partial(patch_normalised, patch=patch),
        "window": partial(window_normalised, window=window),
    }
    return table[name]


def patch_normalised(x: Tensor, patch: int) -> Tensor:
    """Each patch with mean 0 and variance 1 over its pixels and channels (MAE, section 4.1, norm_pix_loss).

    The variance is the unbiased one, as in the published code. A target that is a function of the hidden
    pixels alone keeps the Barber-Agakov reading of the loss: the bound is then on a part of the information.

    Args:
        x: (B, C, H, W).
        patch: pixels a side; divides H and W, and C * patch^2 is 2 or more.

    Returns:
        (B, C, H, W) float32.
    """
    rows = x.shape[2] // patch
    cells = x.float().unflatten(3, (-1, patch)).unflatten(2, (rows, patch))  # (B, C, rows, patch, cols, patch)
    variance, mean = torch.var_mean(cells, dim=(1, 3, 5), correction=1, keepdim=True)
    return ((cells - mean) / (variance + EPS).sqrt()).flatten(4).flatten(2, 3)


def window_normalised(x: Tensor, window: int) -> Tensor:
    """Each pixel against the mean and variance of the window around it (SwinV2, section 4.1; 47 pixels).

    Over the pixels of the window that lie in the image, each channel by itself, with the unbiased variance
    m2 - m^2 times n / (n - 1). The windows of hidden pixels hold visible ones, so what is predicted is no
    function of the hidden pixels alone and the Barber-Agakov reading of the loss no longer holds.

    Args:
        x: (B, C, H, W).
        window: pixels a side, odd; an image with a shorter side takes the largest odd window that fits it.

    Returns:
        (B, C, H, W) float32.
    """
    x = x.float()
    side = min(x.shape[2:])
    window = min(window, side - 1 + side % 2)
    count = _window_sum(torch.ones_like(x[:1, :1]), window)
    mean = _window_sum(x, window) / count
    square = _window_sum(x * x, window) / count
    variance = ((square - mean * mean) * count / (count - 1)).clamp(min=0)
    return (x - mean) / (variance + EPS).sqrt()


def _window_sum(x: Tensor, window: int) -> Tensor:
    """The sum over the window around each pixel: along columns, then along rows, which costs 2 w and not w^2."""
    half = window // 2
    columns = F.avg_pool2d(x, (window, 1), stride=1, padding=(half, 0), divisor_override=1)
    return F.avg_pool2d(columns, (1, window), stride=1, padding=(0, half), divisor_override=1)
