"""Applies augmentation parameters to the pixels of a batch, in the order of ``Recipe``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sslcli.randomness import to_device
from sslcli.types import Field
from sslcli.views.base import normalise
from sslcli.views.image.colour import recolour, solarise
from sslcli.views.image.erase import erase
from sslcli.views.image.parameters import Parameters, Size, sent, without_blur
from sslcli.views.image.resample import resample, resample_one
from sslcli.views.image.rotate import rotated

CACHE = 2**19  # pixel values of a part of a batch that fits into a CPU's cache
DEVICE = 2**27  # pixel values that a GPU processes at once; resize matrices need memory, too
_LARGEST = {torch.uint8: 255, torch.uint16: 65_535}  # white
ALONE = 128 * 128  # pixels of a view from which a CPU resizes images one at a time, in blocks


def augment(
    images: Tensor, parameters: Parameters[np.ndarray], column: Field, view: Tensor, target: Tensor | None
) -> None:
    """Write a view of every image, and its target.

    Args:
        images: (B, C, H, W), pixels of uint8 or uint16, or numbers of any other dtype, which are taken as they are.
        parameters: the parameters of every image.
        column: has the mean and std for normalisation, and says whether the images are pixels, which stay in [0, 1].
        view: (B, C, h, w) of any precision and layout, written in place.
        target: like ``view``, but without blur, change of colours and erasing; None if it is not needed.
    """
    size = view.shape[2], view.shape[3]
    for part in _parts(images, size):
        host = parameters.part(part)
        device = sent(host, images.device)
        cut = _cut_out(images[part], host, device, size)
        if target is not None:
            sharp = _cut_out(images[part], without_blur(host), device, size) if host.sigma.any() else cut
            target[part].copy_(normalise(sharp, column))
        view[part].copy_(normalise(_recoloured(cut, host, device, clamp=column.is_pixels), column))
        if host.erase.any():
            erase(view[part], device.erase)
        if host.kept.shape[1]:
            view[part].mul_(device.kept[:, :, None, None])


def _parts(images: Tensor, size: Size) -> Iterator[slice]:
    """Split a batch of images (B, C, H, W) that become views of ``size`` into slices that are fast to process."""
    numbers = images.shape[1] * max(images.shape[2] * images.shape[3], size[0] * size[1])
    budget = CACHE if images.device.type == "cpu" else DEVICE
    length = max(1, budget // numbers)
    return (slice(start, start + length) for start in range(0, len(images), length))


def _cut_out(images: Tensor, host: Parameters[np.ndarray], device: Parameters[Tensor], size: Size) -> Tensor:
    """Crop, resize, flip, blur and rotate: (B, C, *size) float32, pixels in [0, 1], which the caller may change.

    Args:
        images: (B, C, H, W).
        host: the parameters on the host, to decide what to compute without waiting for the device.
        device: the parameters on the images' device.
        size: height and width of the result.
    """
    if images.device.type == "cpu" and size[0] * size[1] >= ALONE:
        cut = images.new_empty(len(images), images.shape[1], *size, dtype=torch.float32)
        for row, (top, left, height, width) in enumerate(host.window.astype(int).tolist()):
            window = _as_floats(images[row, :, top : top + height, left : left + width])
            cut[row] = resample_one(window, size, bool(host.flip[row]), float(host.sigma[row]))
    else:
        top, left, height, width = device.window.unbind(1)
        blurred = _rows(host.sigma, images.device)
        sigma = None if blurred is None else device.sigma[blurred]
        cut = resample(_as_floats(images), (top, height), (left, width), device.flip, size, sigma, blurred)
    rotated_rows = _rows(host.degrees, images.device)
    if rotated_rows is not None:
        cut.index_copy_(0, rotated_rows, rotated(cut[rotated_rows], device.degrees[rotated_rows]))
    return cut


def _recoloured(pixels: Tensor, host: Parameters[np.ndarray], device: Parameters[Tensor], *, clamp: bool) -> Tensor:
    """Apply colour jitter, grayscale and solarisation to (B, C, H, W); ``clamp`` keeps pixels in [0, 1]."""
    if host.colour.shape[1]:
        pixels = recolour(pixels, device.colour, clamp=clamp)
    if host.solarise.any():
        pixels = torch.where(device.solarise[:, None, None, None] > 0, solarise(pixels), pixels)
    return pixels


def _rows(values: np.ndarray, device: torch.device) -> Tensor | None:
    """Return the indices, on the device, at which ``values`` (B,) are not 0; None if there are none."""
    rows = np.flatnonzero(values)
    return to_device(torch.from_numpy(rows), device) if len(rows) else None


def _as_floats(images: Tensor) -> Tensor:
    """Convert to float32: uint8 and uint16 are pixels and go to [0, 1], numbers of another dtype stay as they are."""
    largest = _LARGEST.get(images.dtype)
    return images.float() if largest is None else images.float().div_(largest)
