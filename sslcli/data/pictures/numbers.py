"""Pictures as numbers: any number of channels, floats or integers, from TIFF, NumPy's files and what Pillow reads."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from sslcli.data.pictures.arrays import NPY, TIFF, opened_tiff, read_npy, read_tiff
from sslcli.data.pictures.colours import deep_to_rgb, pixels_of, to_rgb
from sslcli.data.pictures.deep import deep_values, is_deep
from sslcli.data.pictures.opening import FORMATS, BadPicture
from sslcli.data.pictures.orientation import Turn
from sslcli.data.pictures.reading import COLOURS, Reading


def numbers_of(file: BinaryIO, reading: Reading) -> tuple[Tensor, Turn]:
    """Read one picture as (C, H, W) of ``reading.dtype``, as it is stored, and its orientation.

    Raises:
        BadPicture: it has another number of channels, or numbers that are not finite.
    """
    values, turn = stored_values(file, reading)
    if is_deep_array(values) and not reading.floats:
        if _is_shown(reading) and values.ndim == 3:
            image = deep_to_rgb(values, reading)
            values = pixels_of(image.convert("L") if reading.channels == 1 else image).permute(1, 2, 0).numpy()
        else:
            values = reading.to_bytes(values)
    pixels = _arranged(values, reading.channels)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise BadPicture("numbers that are not finite")
    if pixels.dtype.kind == "f" and not reading.floats:
        raise BadPicture("floating-point pixels, and the pictures that were looked at have none")
    return torch.from_numpy(np.ascontiguousarray(pixels, np.float32 if reading.floats else np.uint8)), turn


def stored_values(file: BinaryIO, reading: Reading) -> tuple[np.ndarray, Turn]:
    """Return the numbers of a picture as its file has them, (H, W) or three axes, and its orientation.

    Pictures of bytes are converted to grey or to RGB where one or three channels are wanted.
    """
    start = file.read(8)
    file.seek(0)
    if start.startswith(NPY):
        return read_npy(file), Turn()
    if start[:4] in TIFF and not _is_shown(reading):
        return read_tiff(file), Turn()
    try:
        image: Image.Image = Image.open(file, formats=FORMATS)
        reading.check_pixels(*image.size)
    except UnidentifiedImageError:
        if start[:4] not in TIFF:
            raise
        file.seek(0)
        return read_tiff(file), Turn()
    if is_deep(image):
        return deep_values(image, file), Turn.of(image)
    image.load()  # Pillow turns a TIFF upright here
    turn = Turn.of(image)
    if image.mode != "F" and _is_shown(reading):
        image = to_rgb(image).convert("L" if reading.channels == 1 else "RGB")
    return pixels_of(image).permute(1, 2, 0).numpy(), turn


def opened_image(file: BinaryIO) -> Image.Image:
    """Open a picture that Pillow reads; this reads the header and refuses decompression bombs.

    Raises:
        BadPicture: it is an array of numbers, which needs ``dataset.channels``.
    """
    start = file.read(8)
    file.seek(0)
    if start.startswith(NPY):
        raise BadPicture("an array of NumPy's: give its channels as dataset.channels")
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        if start[:4] not in TIFF:
            raise
    file.seek(0)
    with opened_tiff(file) as tiff:
        shape = list(tiff.series[0].shape)
    raise BadPicture(f"an array of shape {shape}: give its channels as dataset.channels")


def is_deep_array(values: np.ndarray) -> bool:
    """Whether these are integers of more than 8 bits."""
    return values.dtype.kind in "iu" and values.dtype != np.uint8


def _is_shown(reading: Reading) -> bool:
    """Whether pictures are grey or colours, to which others can be converted."""
    return reading.channels in (1, COLOURS)


def _arranged(values: np.ndarray, channels: int) -> np.ndarray:
    """Return the numbers of (H, W), (H, W, C) or (C, H, W) as (C, H, W); grey is repeated for three colours."""
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3:
        raise BadPicture(f"an array of shape {list(values.shape)} is no picture")
    if values.shape[2] == channels:
        return values.transpose(2, 0, 1)
    if values.shape[0] == channels:
        return values
    if 1 in (values.shape[0], values.shape[2]) and channels == COLOURS:
        grey = values.transpose(2, 0, 1) if values.shape[2] == 1 else values
        return np.repeat(grey, COLOURS, 0)
    raise BadPicture(f"an array of shape {list(values.shape)}, and dataset.channels={channels}")
