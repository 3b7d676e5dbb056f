"""Converts pictures of Pillow's modes to red, green and blue, or to grey: transparent pixels become white."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sslcli.data.pictures.opening import BadPicture
from sslcli.data.pictures.reading import Reading

_TRANSPARENT = ("LA", "PA", "RGBA", "La", "RGBa")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode, but deep integers, to RGB; transparent pixels become white.

    Raises:
        BadPicture: pixels are floats, whose range is not known.
    """
    if image.mode == "F":
        raise BadPicture("floating-point pixels, and the pictures that were looked at have none")
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        transparent = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(transparent, mask=transparent)
    return image.convert("RGB")


def deep_to_rgb(values: np.ndarray, reading: Reading) -> Image.Image:
    """Convert deep integers (H, W, C) of grey or colour, with or without alpha, to RGB by the levels of ``reading``."""
    channels = values.shape[2]
    colours = reading.to_bytes(values[..., : channels - (channels + 1) % 2])  # alpha is the last of two or four
    if channels % 2 == 0:
        colours = np.concatenate([colours, (values[..., -1:].astype(np.int64) >> 8).astype(np.uint8)], 2)
    return to_rgb(Image.fromarray(colours[..., 0] if channels == 1 else colours))


def pixels_of(image: Image.Image) -> Tensor:
    """Return the pixels (C, H, W) of a picture."""
    array = np.array(image)
    return torch.from_numpy(array[..., None] if array.ndim == 2 else array).permute(2, 0, 1)
