"""Integers of more than 8 bits: pictures that have them, and their values, of which Pillow keeps the high byte only."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_png

Arguments = tuple[Any, ...] | str | None  # of a tile of Pillow's
_OTHER_BYTE = {"16L": "16B", "16B": "16L", "16N": "16B" if np.little_endian else "16L"}  # in Pillow's raw modes


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture, which is not loaded yet, has integers of more than 8 bits."""
    return image.mode.startswith("I") or _raw_mode(image) is not None


def deep_values(image: Image.Image, file: BinaryIO) -> np.ndarray:
    """Return the integers (H, W, C) of a deep picture, which is loaded.

    Args:
        image: the picture, opened from ``file`` and not loaded.
        file: its file.
    """
    raw = _raw_mode(image)
    if image.format == "PNG" and raw is not None:
        file.seek(0)
        content = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
        image.load()  # refuses what is incomplete
        return decode_png(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    if raw is None:
        image.load()
        return np.asarray(image, dtype=np.int64)[..., None]
    low = Image.open(file, formats=(str(image.format),))
    mode, depth = raw.split(";")
    low.tile = [tile._replace(args=_with(tile.args, raw, f"{mode};{_OTHER_BYTE[depth]}")) for tile in low.tile]
    low.load()
    file.seek(0)
    high = Image.open(file, formats=(str(image.format),))
    high.load()
    image.load()
    return np.asarray(high).astype(np.int64) * 256 + np.asarray(low)


def _raw_mode(image: Image.Image) -> str | None:
    """Return the raw mode of a picture with 16 bits a channel and several channels, such as ``RGB;16B``."""
    if image.mode.startswith("I"):
        return None
    for tile in getattr(image, "tile", ()):
        for word in (tile[3],) if isinstance(tile[3], str) else tile[3] or ():
            if isinstance(word, str) and word.partition(";")[2] in _OTHER_BYTE:
                return word
    return None


def _with(arguments: Arguments, old: str, new: str) -> Arguments:
    if isinstance(arguments, tuple):
        return tuple(new if word == old else word for word in arguments)
    return new if arguments == old else arguments
