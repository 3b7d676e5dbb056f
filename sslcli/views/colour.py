"""Colour jitter and grayscale of a batch as one 3x3 matrix and one offset per sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslcli.views.constants import constant

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601; torchvision rounds the first to 0.2989
_TO_YIQ = (*LUMA, 0.595716, -0.274453, -0.321263, 0.211456, -0.522591, 0.311135)  # row by row
_TO_RGB = tuple(torch.tensor(_TO_YIQ, dtype=torch.float64).view(3, 3).inverse().flatten().tolist())


def jitter(x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor, gray: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1] with per-sample brightness, contrast, saturation, hue and grayscale.

    Brightness, contrast and saturation are torchvision's with the factors (B,) given; ``gray`` (B,) bool
    turns a sample gray. What differs on purpose: the order is fixed (brightness, contrast, saturation,
    hue, gray), the result is clamped once at the end and not after each operation, and ``hue`` (B,), in
    turns, rotates the chroma plane of YIQ, which is linear, where torchvision rotates HSV. One-channel
    images have no colour: only brightness and contrast act.
    """
    if x.shape[1] == 1:
        luma = x
        mixed = x * (brightness * contrast)[:, None, None, None]
    else:
        weights = constant(LUMA, x.dtype, x.device)
        luma = torch.einsum("c,bchw->bhw", weights, x)[:, None]
        matrix = _colour_matrix(saturation, hue, gray, weights) * (brightness * contrast)[:, None, None]
        mixed = torch.bmm(matrix, x.flatten(2)).view_as(x)
    # Saturation, hue and gray leave gray values fixed, so contrast's mean passes through them unchanged.
    offset = (1 - contrast) * brightness * luma.mean((1, 2, 3))
    return (mixed + offset[:, None, None, None]).clamp_(0, 1)


def _colour_matrix(saturation: Tensor, hue: Tensor, gray: Tensor, weights: Tensor) -> Tensor:
    """(B, 3, 3): gray @ hue @ saturation."""
    to_yiq = constant(_TO_YIQ, weights.dtype, weights.device).view(3, 3)
    to_rgb = constant(_TO_RGB, weights.dtype, weights.device).view(3, 3)
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    luma = weights.expand(3, 3)
    s = saturation[:, None, None]
    identity = torch.eye(3, dtype=weights.dtype, device=weights.device)
    matrix = (to_rgb @ turn @ to_yiq) @ (s * identity + (1 - s) * luma)
    return torch.where(gray[:, None, None], luma @ matrix, matrix)
