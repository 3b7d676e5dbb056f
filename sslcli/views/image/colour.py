"""Colour jitter and grayscale of a batch as one matrix and one offset per sample, and solarisation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sslcli.views.constants import constant

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601; torchvision rounds the first to 0.2989
_TO_YIQ = np.array([LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])
_TO_RGB = np.linalg.inv(_TO_YIQ)


def colour_change(
    brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray, hue: np.ndarray, gray: np.ndarray
) -> np.ndarray:
    """Return (B, 10) float32: a 3x3 matrix in row-major order, and the factor of the mean luma in the offset.

    Brightness, contrast and saturation with the factors (B,) are those of torchvision; ``gray`` (B,) bool makes a
    sample gray. Three things differ on purpose: the order is fixed (brightness, contrast, saturation, hue, gray); the
    result is clamped once at the end, not after each operation; and ``hue`` (B,), in turns, rotates the chroma plane
    of YIQ, which is linear, while torchvision rotates the hue of HSV.
    """
    cos, sin = np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)
    one, zero = np.ones_like(cos), np.zeros_like(cos)
    turn = np.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).reshape(-1, 3, 3)
    luma = np.tile(LUMA, (3, 1))
    s = saturation[:, None, None]
    matrix = _TO_RGB @ turn @ _TO_YIQ @ (s * np.eye(3) + (1 - s) * luma)
    matrix = np.where(gray[:, None, None], luma @ matrix, matrix) * (brightness * contrast)[:, None, None]
    # Saturation, hue and gray do not change gray values, so the offset that contrast adds is not changed by them.
    lift = (1 - contrast) * brightness
    return np.concatenate([matrix.reshape(-1, 9), lift[:, None]], 1).astype(np.float32)


def gray_change(brightness: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Return (B, 2) float32, factor and offset factor for one channel, which brightness and contrast change only."""
    return np.stack([brightness * contrast, (1 - contrast) * brightness], 1).astype(np.float32)


def recolour(x: Tensor, change: Tensor, *, clamp: bool = True) -> Tensor:
    """Apply ``colour_change`` (B, 10) with C = 3, or ``gray_change`` (B, 2) with C = 1, to (B, C, H, W).

    The change is linear, so it suits numbers of any range; ``clamp`` keeps pixels in [0, 1].
    """
    channels = x.shape[1]
    pixels = x.flatten(2)
    weights = constant(LUMA if channels == 3 else (1.0,), x.dtype, x.device)
    luma = (pixels.mean(2) * weights).sum(1)
    matrix, offset = change[:, :-1].reshape(-1, channels, channels), change[:, -1] * luma
    changed = torch.baddbmm(offset[:, None, None], matrix, pixels).view(x.shape)
    return changed.clamp_(0, 1) if clamp else changed


def solarise(x: Tensor) -> Tensor:
    """Invert values of at least 0.5 (BYOL, Grill et al. 2020, appendix B)."""
    return torch.where(x >= 0.5, 1 - x, x)
