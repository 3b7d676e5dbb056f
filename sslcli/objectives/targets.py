"""The targets of masked image modelling: pixels, or pixels without their local brightness and contrast."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-6  # added to each variance, as published


def target_function(name: str, patch: int, window: int) -> Callable[[Tensor], Tensor]:
    """Return the function from (B, C, H, W) to targets of that shape; ``patch`` and ``window`` are sides in pixels."""
    table: dict[str, Callable[[Tensor], Tensor]] = {
        "none": Tensor.float,
        "patch": partial(patch_normalised, patch=patch),
        "window": partial(window_normalised, window=window),
    }
    return table[name]


def patch_normalised(x: Tensor, patch: int) -> Tensor:
    """Normalise each patch to mean 0 and variance 1 over its pixels and channels (MAE, section 4.1, norm_pix_loss).

    The variance is the unbiased one, as in the published code. As the target is a function of the hidden pixels
    alone, the loss is still a Barber-Agakov bound, on the information about this function of the hidden pixels.

    Args:
        x: (B, C, H, W).
        patch: side of a patch in pixels; divides H and W, and C * patch^2 is 2 or more.

    Returns:
        (B, C, H, W) float32.
    """
    rows = x.shape[2] // patch
    cells = x.float().unflatten(3, (-1, patch)).unflatten(2, (rows, patch))  # (B, C, rows, patch, cols, patch)
    variance, mean = torch.var_mean(cells, dim=(1, 3, 5), correction=1, keepdim=True)
    return ((cells - mean) / (variance + EPS).sqrt()).flatten(4).flatten(2, 3)


def window_normalised(x: Tensor, window: int) -> Tensor:
    """Normalise each pixel by the mean and variance of the window around it (SwinV2, section 4.1; 47 pixels).

    Both are taken over the pixels of the window that lie in the image, for each channel separately, with the unbiased
    variance (m2 - m^2) n / (n - 1). The windows of hidden pixels contain visible pixels, so the target is not a
    function of the hidden pixels alone, and the loss is no Barber-Agakov bound.

    Args:
        x: (B, C, H, W).
        window: side in pixels, odd; for an image with a shorter side, the largest odd window that fits it.

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
    """Sum over the window around each pixel: along columns, then along rows, at a cost of 2 w instead of w^2."""
    half = window // 2
    columns = F.avg_pool2d(x, (window, 1), stride=1, padding=(half, 0), divisor_override=1)
    return F.avg_pool2d(columns, (1, window), stride=1, padding=(0, half), divisor_override=1)
