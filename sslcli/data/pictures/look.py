"""Looks at a few pictures of a dataset: whether they are bytes, deeper integers or floats, and how large these get."""

from __future__ import annotations

from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from sslcli.data.pictures.arrays import NPY, TIFF, opened_tiff, read_npy
from sslcli.data.pictures.deep import is_deep
from sslcli.data.pictures.levels import MEASURED, levels_of
from sslcli.data.pictures.numbers import is_deep_array, stored_values
from sslcli.data.pictures.opening import FORMATS, BadPicture, Source, opened, reasons
from sslcli.data.pictures.reading import COLOURS, Reading
from sslcli.data.selection import drawn

LOOKED = 64  # pictures whose headers are read when a dataset is opened
_VALUES = 2**14  # numbers of each deep picture that are returned, evenly spread
_PNG = b"\x89PNG"
_DEEP, _FLOAT = "deep", "float"


class Sources(Protocol):
    """N pictures in files."""

    def __len__(self) -> int: ...

    def source(self, i: int) -> Source:
        """Return the content of the i-th picture's file, or its path."""


def look(pictures: Sources, channels: int | None) -> Reading:
    """Return how to read some pictures, from the headers of at most 64 that are drawn with a fixed seed.

    Args:
        pictures: the pictures.
        channels: as the user gave them; None is three.
    """
    found = set()
    for i in drawn(len(pictures), LOOKED).tolist():
        try:
            with opened(pictures.source(i)) as file, reasons():
                found.add(_kind(file))
        except BadPicture:
            continue
    return Reading(channels or COLOURS, floats=_FLOAT in found, deep=_DEEP in found)


def _kind(file: BinaryIO) -> str:
    """Tell from the header of a picture whether its numbers are deep, floats or bytes (an empty text)."""
    start = file.read(25)
    file.seek(0)
    if start.startswith(_PNG):
        return _DEEP if start[24:] == b"\x10" else ""  # the bit depth
    if start.startswith(NPY):
        return _kind_of(read_npy(file))
    if start[:4] in TIFF:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            file.seek(0)
            with opened_tiff(file) as tiff:
                return _kind_of(np.empty(0, tiff.series[0].dtype))
        return _FLOAT if image.mode == "F" else _DEEP if is_deep(image) else ""
    return _DEEP if start.startswith((b"P2", b"P5")) and is_deep(Image.open(file, formats=FORMATS)) else ""


def _kind_of(values: np.ndarray) -> str:
    return _FLOAT if values.dtype.kind == "f" else _DEEP if is_deep_array(values) else ""


def deep_values_of(pictures: Sources, index: Tensor, reading: Reading) -> np.ndarray:
    """Return some numbers of each deep picture at ``index``, without alpha."""
    found = [np.zeros(0, np.int64)]
    for i in index.tolist():
        try:
            with opened(pictures.source(i)) as file, reasons():
                values, _ = stored_values(file, reading)
        except BadPicture:
            continue
        if is_deep_array(values):
            is_colour = reading.channels in (1, COLOURS) and values.ndim == 3
            values = values[..., :-1] if is_colour and values.shape[2] in (2, 4) else values
            found.append(values.ravel()[:: max(1, values.size // _VALUES)].astype(np.int64))
    return np.concatenate(found)


def reading_for_all(pictures: Sources) -> Reading:
    """Return how to read some pictures as colours, with the range measured on at most 256 of all of them."""
    reading = look(pictures, None)
    if reading.deep:
        values = deep_values_of(pictures, drawn(len(pictures), MEASURED), reading)
        reading.levels = levels_of(values) if len(values) else None
    return Reading(deep=reading.deep, levels=reading.levels)
