"""Decodes picture files of common formats to RGB pixels: upright, on white, and not larger than needed."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_jpeg

from sslcli.data.pictures.orientation import Turn, Window

# Not all formats of Pillow, because an EPS file that is called .jpg would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")

Source = bytes | str | os.PathLike[str]  # content of a file, or its path


class BadPicture(Exception):
    """A file is not a complete picture; the message is a short reason."""


def decode(source: Source, size: int | None = None) -> Tensor:
    """Decode a picture to uint8 RGB (3, H, W), upright by its EXIF orientation, transparent pixels on white.

    Args:
        source: content of a file, or its path.
        size: if given, the result is the largest centred square, resized to (3, size, size).

    Raises:
        BadPicture: the file is not a picture, not complete, not readable, or larger than
            ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    if size is None:
        return decode_crops(source, lambda height, width: [(0, 0, height, width)], None)[0]
    return decode_crops(source, _centred, [(size, size)])[0]


def decode_crops(
    source: Source,
    windows: Callable[[int, int], Sequence[Window]],
    sizes: Sequence[tuple[int, int]] | None,
) -> list[Tensor]:
    """Decode one picture once and return several windows of it, each (3, *size) uint8.

    Windows are resized by the antialiased triangle filter. If all windows of a JPEG are at least twice as large as
    their results, libjpeg decodes at 1/2, 1/4 or 1/8 of the size, by averaging inside its blocks, such that every
    window still has at least the pixels of its result. Where this is possible, it was measured to be faster.

    Args:
        source: content of a file, or its path.
        windows: computes the windows from the height and width of the upright picture.
        sizes: height and width of each result; None does not resize the windows.

    Raises:
        BadPicture: as ``decode``.
    """
    with _opened(source) as file:
        with _reasons():
            image = Image.open(file, formats=FORMATS)  # reads the header and refuses decompression bombs
            jpeg = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
            if not jpeg:
                image.load()  # Pillow turns a TIFF upright here
            turn = Turn.of(image)
        width, height = image.size
        upright = (width, height) if turn.transposed else (height, width)
        stored = [turn.stored(window, *upright) for window in windows(*upright)]
        shapes = [window[2:] for window in stored] if sizes is None else [turn.shape(size) for size in sizes]
        factor = _reduction(stored, shapes) if jpeg else 1
        with _reasons():
            if jpeg:
                _refuse_zeros(file)
            if factor > 1:
                image.draft(image.mode, (width // factor, height // factor))
                rgb = image.convert("RGB")
                cuts = [_cut_reduced(rgb, *pair, factor) for pair in zip(stored, shapes)]
            else:
                pixels = _jpeg(file, image) if jpeg else _pixels(to_rgb(image))
                cuts = [_cut(pixels, *pair) for pair in zip(stored, shapes)]
    return [turn.upright(cut) for cut in cuts]


def _centred(height: int, width: int) -> list[Window]:
    side = min(height, width)
    return [((height - side) // 2, (width - side) // 2, side, side)]


def _reduction(windows: Sequence[Window], shapes: Sequence[tuple[int, int]]) -> int:
    """Return the largest reduction factor of libjpeg at which every window has at least the pixels of its result."""
    room = min(min(w[2] // shape[0], w[3] // shape[1]) for w, shape in zip(windows, shapes))
    return max(factor for factor in (1, 2, 4, 8) if factor <= max(room, 1))


def _cut(pixels: Tensor, window: Window, shape: tuple[int, int]) -> Tensor:
    top, left, height, width = window
    cut = pixels[:, top : top + height, left : left + width]
    if (height, width) == tuple(shape):
        return cut
    return F.interpolate(cut[None], size=shape, mode="bilinear", antialias=True)[0]


def _cut_reduced(image: Image.Image, window: Window, shape: tuple[int, int], factor: int) -> Tensor:
    """Cut and resize a window of a picture reduced by ``factor``; Pillow can cut at fractions of pixels."""
    top, left, height, width = (length / factor for length in window)
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    return _pixels(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box))


def _pixels(rgb: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


# --- colours ----------------------------------------------------------------------------------------


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode of Pillow to RGB: 16 bit values keep their high byte, transparent pixels become white.

    Raises:
        BadPicture: pixels are floats, whose range is not known.
    """
    if image.mode == "F":
        raise BadPicture("floating-point pixels, whose range is not known")
    if image.mode.startswith("I"):  # Pillow would clip these values
        image = Image.fromarray((np.asarray(image, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        transparent = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(transparent, mask=transparent)
    return image.convert("RGB")


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
    file.seek(0)
    data = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    try:
        with _captured_stderr() as messages:
            pixels = decode_jpeg(data, mode=ImageReadMode.RGB)
    except RuntimeError:
        return _pixels(image.convert("RGB"))
    # If data are missing between intact markers, libjpeg fills the rest with grey and only prints a warning. Pillow
    # hides this warning, so a reduced decode cannot detect it. Stray bytes between markers do no harm.
    if b"premature end" in messages or b"bad Huffman" in messages:
        raise BadPicture("damaged JPEG data")
    return pixels


# --- files, errors and warnings ---------------------------------------------------------------------


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        file = open(source, "rb")  # noqa: PTH123, SIM115  closed below; errors of the caller are not caught here
    except FileNotFoundError:
        raise BadPicture("no such file") from None
    except (OSError, ValueError) as error:
        raise BadPicture(getattr(error, "strerror", None) or str(error)) from None
    with file:
        yield file


@contextmanager
def _reasons() -> Iterator[None]:
    """Convert any exception of a decoder to BadPicture with one short line, and hide its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (BadPicture, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadPicture("not a picture, or an unknown format") from None
    except Image.DecompressionBombError:
        raise BadPicture("too many pixels (PIL.Image.MAX_IMAGE_PIXELS)") from None
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        lines = str(error).splitlines()
        raise BadPicture(lines[0][:100] if lines else type(error).__name__) from None


_stderr_lock = threading.Lock()


@contextmanager
def _captured_stderr() -> Iterator[bytearray]:
    """Capture what a C library writes to the process's stderr; the result is filled at the end of the block."""
    captured = bytearray()
    with _stderr_lock:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        original = os.dup(2)
        os.dup2(writing, 2)
        os.close(writing)
        try:
            yield captured
        finally:
            os.dup2(original, 2)
            os.close(original)
            try:
                captured += os.read(reading, 65536)
            except BlockingIOError:
                pass
            finally:
                os.close(reading)
