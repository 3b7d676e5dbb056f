"""Integers of more than 8 bits: pictures that have them, and their values, of which Pillow keeps the high byte only."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_png

from sslcli.data.pictures.arrays import read_tiff

_BITS, _SAMPLE_FORMAT = 258, 339  # tags of TIFF; the format 1 is unsigned
_UNSIGNED = 2**32 - 1
Arguments = tuple[Any, ...] | str | None  # of a tile of Pillow's
_OTHER_BYTE = {"16L": "16B", "16B": "16L", "16N": "16B" if np.little_endian else "16L"}  # in Pillow's raw modes


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture, which is not loaded yet, has integers of more than 8 bits."""
    return image.mode.startswith("I") or _raw_mode(image) is not None or _is_misread(image)


def deep_values(image: Image.Image, file: BinaryIO) -> np.ndarray:
    """Return the integers (H, W, C) of a deep picture, which is loaded.

    Args:
        image: the picture, opened from ``file`` and not loaded.
        file: its file.
    """
    if _is_misread(image):
        file.seek(0)
        values = read_tiff(file)
        return values.transpose(1, 2, 0) if values.ndim == 3 and values.shape[0] < values.shape[2] else values
    raw = _raw_mode(image)
    if image.format == "PNG" and raw is not None:
        file.seek(0)
        content = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
        image.load()  # refuses what is incomplete
        return decode_png(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
    if raw is None:
        image.load()
        values = np.asarray(image, dtype=np.int64)[..., None]
        return values & _UNSIGNED if _is_unsigned(image) else values
    depth = raw.partition(";")[2]
    low = Image.open(file, formats=(str(image.format),))
    low.tile = [tile._replace(args=_with(tile.args, f";{depth}", f";{_OTHER_BYTE[depth]}")) for tile in low.tile]
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
    """Return the arguments with another end of the words that end in ``old``."""
    if isinstance(arguments, tuple):
        return tuple(_with(word, old, new) if isinstance(word, str) else word for word in arguments)
    return f"{arguments.removesuffix(old)}{new}" if arguments is not None and arguments.endswith(old) else arguments


def _is_unsigned(image: Image.Image) -> bool:
    """Whether a TIFF has 32 bits without a sign, which Pillow takes for numbers with one."""
    is_long = image.mode == "I" and image.format == "TIFF"
    return is_long and getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (1,))[0] == 1


def _is_misread(image: Image.Image) -> bool:
    """Whether Pillow would take the bytes of a TIFF with 16 bits a channel, one channel after the other, for pixels."""
    if image.format != "TIFF" or image.mode.startswith(("I", "F")) or _raw_mode(image) is not None:
        return False
    return max(getattr(image, "tag_v2", {}).get(_BITS, (8,))) > 8
