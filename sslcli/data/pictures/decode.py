"""Decodes picture files of common formats to RGB pixels: upright, on white, and not larger than needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from sslcli.data.pictures.colours import deep_to_rgb, pixels_of, to_rgb
from sslcli.data.pictures.deep import deep_values, is_deep
from sslcli.data.pictures.numbers import numbers_of, opened_image
from sslcli.data.pictures.opening import BadPicture, Source, captured_stderr, opened, reasons
from sslcli.data.pictures.orientation import Turn, Window
from sslcli.data.pictures.png_chunks import pixels_only
from sslcli.data.pictures.reading import RGB, Reading
from sslcli.data.pictures.windows import centred_window, cut_out, cut_reduced, reduction_factor, stored_windows


def decode(source: Source, size: int | None = None, reading: Reading = RGB, *, verify: bool = True) -> Tensor:
    """Decode a picture to (C, H, W), upright by its EXIF orientation.

    Args:
        source: content of a file, or its path.
        size: if given, the result is the largest centred square, resized to (C, size, size).
        reading: which numbers; the default is uint8 RGB with transparent pixels on white.
        verify: as in ``decode_crops``.

    Raises:
        BadPicture: the file is not a picture, not complete, not readable, or larger than
            ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if size is None:
        return decode_crops(source, lambda height, width: [(0, 0, height, width)], None, reading)[0]
    shape = size, size
    return decode_crops(source, partial(centred_window, shape), [shape], reading, verify=verify)[0]


def decode_crops(
    source: Source,
    windows: Callable[[int, int], Sequence[Window]],
    sizes: Sequence[tuple[int, int]] | None,
    reading: Reading = RGB,
    *,
    verify: bool = True,
) -> list[Tensor]:
    """Decode one picture once and return several windows of it, each (C, *size).

    Windows are resized by the antialiased triangle filter. If all windows of a JPEG are at least twice as large as
    their results, libjpeg decodes at 1/2, 1/4 or 1/8 of the size, by averaging inside its blocks, such that every
    window still has at least the pixels of its result. Where this is possible, it was measured to be faster.

    Args:
        source: content of a file, or its path.
        windows: computes the windows from the height and width of the upright picture.
        sizes: height and width of each result; None does not resize the windows.
        reading: which numbers.
        verify: whether damage is looked for that a reduced decode does not show; False for a picture that has been
            verified. So whether a picture is bad does not depend on the windows.

    Raises:
        BadPicture: as ``decode``.
    """
    try:
        with opened(source) as file:
            return _decoded(file, windows, sizes, reading, verify)
    except BadPicture:
        with opened(source) as file:
            content = pixels_only(file)
        if content is None:
            raise
        with opened(content) as file:
            return _decoded(file, windows, sizes, reading, verify)


def _decoded(
    file: BinaryIO,
    windows: Callable[[int, int], Sequence[Window]],
    sizes: Sequence[tuple[int, int]] | None,
    reading: Reading,
    verify: bool,
) -> list[Tensor]:
    reading.allow_pixels()
    if not reading.of_colours:
        with reasons():
            pixels, turn = numbers_of(file, reading)
        stored, shapes = stored_windows(windows, sizes, turn, pixels.shape[2], pixels.shape[1])
        return [turn.upright(cut_out(pixels, *pair)) for pair in zip(stored, shapes)]
    with reasons():
        image = opened_image(file)
        reading.check_pixels(*image.size)
        jpeg = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
        deep = is_deep(image)
        if deep:
            values = deep_values(image, file)
        elif not jpeg:
            image.load()  # Pillow turns a TIFF upright here
        turn = Turn.of(image)
    width, height = image.size
    stored, shapes = stored_windows(windows, sizes, turn, width, height)
    factor = reduction_factor(stored, shapes) if jpeg else 1
    with reasons():
        if jpeg:
            _refuse_zeros(file)
        if factor > 1:
            if verify:
                _refuse_damage(file)
            image.draft(image.mode, (width // factor, height // factor))
            rgb = image.convert("RGB")
            cuts = [cut_reduced(rgb, *pair, factor) for pair in zip(stored, shapes)]
        else:
            pixels = _jpeg(file, image) if jpeg else pixels_of(deep_to_rgb(values, reading) if deep else to_rgb(image))
            cuts = [cut_out(pixels, *pair) for pair in zip(stored, shapes)]
    return [turn.upright(cut) for cut in cuts]


def _refuse_zeros(file: BinaryIO) -> None:
    """Raise BadPicture if a JPEG ends in zeros, as after an interrupted download; libjpeg would decode the zeros."""
    file.seek(-16, os.SEEK_END)
    if not any(file.read()):
        file.seek(0)
        data = file.read()
        if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # no end of image after the last start of a scan
            raise BadPicture("truncated: it ends in zeros")


def _jpeg(file: BinaryIO, image: Image.Image) -> Tensor:
    """Decode a grey or colour JPEG with torchvision, or with Pillow if torchvision cannot.

    Raises:
        BadPicture: data are missing or damaged.
    """
    pixels = _whole_jpeg(file, ImageReadMode.RGB)
    return pixels_of(image.convert("RGB")) if pixels is None else pixels


def _refuse_damage(file: BinaryIO) -> None:
    """Raise BadPicture if ``_jpeg`` would; decoding the luminance only takes less time."""
    _whole_jpeg(file, ImageReadMode.GRAY)
    file.seek(0)


def _whole_jpeg(file: BinaryIO, mode: ImageReadMode) -> Tensor | None:
    """Decode a JPEG with torchvision; None if it cannot.

    If data are missing between intact markers, libjpeg fills the rest with grey and only prints a warning, which Pillow
    hides. Stray bytes between markers do no harm.

    Raises:
        BadPicture: data are missing or damaged.
    """
    file.seek(0)
    data = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    try:
        with captured_stderr() as messages:
            pixels = decode_jpeg(data, mode=mode)
    except RuntimeError:
        return None
    if b"premature end" in messages or b"bad Huffman" in messages:
        raise BadPicture("damaged JPEG data")
    return pixels
