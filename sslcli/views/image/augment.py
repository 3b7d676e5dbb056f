"""What a view's parameters do to the pixels of a batch, in the order of ``Recipe``."""

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

CACHE = 2**19  # numbers of a part of a batch that stay in a processor's cache from one operation to the next
DEVICE = 2**27  # numbers that an accelerator takes at once; the matrices need some memory beside them
ALONE = 128 * 128  # pixels of a view from which on a processor cuts images one at a time, in blocks


def augment(
    images: Tensor, parameters: Parameters[np.ndarray], column: Field, view: Tensor, target: Tensor | None
) -> None:
    """Write a view of every image, and its target.

    Args:
        images: (B, C, H, W), uint8 or floats in [0, 1].
        parameters: of every image.
        column: what the view is normalised by.
        view: (B, C, h, w) of any precision and layout, to write into.
        target: the same, for the same geometry without blur, colours and erasing; null where nobody reads it.
    """
    size = view.shape[2], view.shape[3]
    for part in _parts(images, size):
        host = parameters.part(part)
        device = sent(host, images.device)
        cut = _cut_out(images[part], host, device, size)
        if target is not None:
            sharp = _cut_out(images[part], without_blur(host), device, size) if host.sigma.any() else cut
            target[part].copy_(normalise(sharp, column))
        view[part].copy_(normalise(_recoloured(cut, host, device), column))
        if host.erase.any():
            erase(view[part], device.erase)


def _parts(images: Tensor, size: Size) -> Iterator[slice]:
    """The batch in slices that are quick to work on: images (B, C, H, W) that become views of ``size``."""
    numbers = images.shape[1] * max(images.shape[2] * images.shape[3], size[0] * size[1])
    budget = CACHE if images.device.type == "cpu" else DEVICE
    length = max(1, budget // numbers)
    return (slice(start, start + length) for start in range(0, len(images), length))


def _cut_out(images: Tensor, host: Parameters[np.ndarray], device: Parameters[Tensor], size: Size) -> Tensor:
    """Crop, resize, flip, blur and rotation: (B, C, *size) float32 in [0, 1], owned by the caller.

    Args:
        images: (B, C, H, W), uint8 or floats in [0, 1].
        host: the parameters of each sample, to know what there is to do without asking the device.
        device: the same on the images' device.
        size: of the result.
    """
    if images.device.type == "cpu" and size[0] * size[1] >= ALONE:
        cut = images.new_empty(len(images), images.shape[1], *size, dtype=torch.float32)
        for row, (top, left, height, width) in enumerate(host.window.astype(int).tolist()):
            window = _unit(images[row, :, top : top + height, left : left + width])
            cut[row] = resample_one(window, size, bool(host.flip[row]), float(host.sigma[row]))
    else:
        top, left, height, width = device.window.unbind(1)
        blurred = _rows(host.sigma, images.device)
        sigma = None if blurred is None else device.sigma[blurred]
        cut = resample(_unit(images), (top, height), (left, width), device.flip, size, sigma, blurred)
    turned = _rows(host.degrees, images.device)
    if turned is not None:
        cut.index_copy_(0, turned, rotated(cut[turned], device.degrees[turned]))
    return cut


def _recoloured(pixels: Tensor, host: Parameters[np.ndarray], device: Parameters[Tensor]) -> Tensor:
    """Colour jitter, grayscale and solarisation of (B, C, H, W) in [0, 1]."""
    if host.colour.shape[1]:
        pixels = recolour(pixels, device.colour)
    if host.solarise.any():
        pixels = torch.where(device.solarise[:, None, None, None] > 0, solarise(pixels), pixels)
    return pixels


def _rows(values: np.ndarray, device: torch.device) -> Tensor | None:
    """Where ``values`` (B,) are not 0, on the device; None if nowhere."""
    rows = np.flatnonzero(values)
    return to_device(torch.from_numpy(rows), device) if len(rows) else None


def _unit(images: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1], from uint8 or from floats that are there already."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()
