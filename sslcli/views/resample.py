"""Crop, resize, flip and blur of a batch, each with its own parameters, as two matrix products.

An antialiased resize is linear and separable: out = A_h @ x @ A_w^T. A crop picks a window of the
input, a flip reverses the rows of A_w, a blur multiplies another banded matrix onto each. So one pair
of small matrices per sample does all four.
"""

from __future__ import annotations

import torch
from torch import Tensor


def resize_matrix(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """(B, out, size) rows that resize the window [start, start + length) of ``size`` pixels to ``out``.

    The antialiased triangle filter of ``torchvision.transforms.v2.functional.resized_crop(antialias=True)``:
    its half-width is the scale when it shrinks and one pixel when it enlarges. ``start`` and ``length``
    are (B,) whole numbers of pixels.
    """
    scale = (length / out)[:, None, None]
    centre = start[:, None, None] + (torch.arange(out, device=start.device)[:, None] + 0.5) * scale
    source = torch.arange(size, device=start.device) + 0.5
    weight = (1 - (source - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    inside = (source > start[:, None, None]) & (source < (start + length)[:, None, None])
    weight = weight * inside
    return weight / weight.sum(-1, keepdim=True)


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """(B, size, size) Gaussian blur of standard deviation ``sigma`` (B,) pixels; 0 leaves a row as it is.

    Weights are renormalised at the border, where torchvision reflects the image.
    """
    place = torch.arange(size, device=sigma.device, dtype=sigma.dtype)
    distance = (place[:, None] - place) ** 2
    exponent = distance / (2 * sigma.clamp(min=0.05)[:, None, None] ** 2)
    weight = torch.exp(-exponent.clamp(max=80))  # no further, into the denormal numbers that CPUs are slow at
    return weight / weight.sum(-1, keepdim=True)


def random_windows(
    uniform: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width (B,) of RandomResizedCrop's windows from uniforms (B, 22).

    As torchvision: the area is uniform in ``scale`` of the image, the aspect ratio log-uniform in
    ``ratio``; of ten tries the first that fits counts, else the largest centred window of a legal ratio.
    """
    tries, place = uniform[:, :20].unflatten(1, (10, 2)), uniform[:, 20:]
    area = height * width * (scale[0] + (scale[1] - scale[0]) * tries[..., 0])
    low, high = torch.tensor(ratio, dtype=uniform.dtype).log().tolist()
    aspect = torch.exp(low + (high - low) * tries[..., 1])
    w, h = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (w > 0) & (h > 0) & (w <= width) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)  # the first True
    limit = min(max(width / height, ratio[0]), ratio[1])
    any_fits = fits.any(1)
    w = torch.where(any_fits, w.gather(1, first)[:, 0], max(1, min(width, round(height * limit))))
    h = torch.where(any_fits, h.gather(1, first)[:, 0], max(1, min(height, round(width / limit))))
    top = torch.where(any_fits, (place[:, 0] * (height - h + 1)).floor(), ((height - h) / 2).round())
    left = torch.where(any_fits, (place[:, 1] * (width - w + 1)).floor(), ((width - w) / 2).round())
    return top, left, h, w
