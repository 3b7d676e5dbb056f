"""From a picture file to pixels: any common format, by its content, upright, on white, and not larger than needed."""

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

# Not all that Pillow could open: an EPS that is called .jpg would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")

Source = bytes | str | os.PathLike[str]  # a file's content, or its path as text


class BadPicture(Exception):
    """A file that is no whole picture; the message is a short reason."""


def decode(source: Source, size: int | None = None) -> Tensor:
    """A picture as uint8 RGB (3, H, W), turned as its EXIF orientation says, transparency laid on white.

    Args:
        source: a file's content or its path.
        size: with it (3, size, size): the largest centred square, resized.

    Raises:
        BadPicture: no picture, not a whole one, too large for ``PIL.Image.MAX_IMAGE_PIXELS``, or not readable.
    """
    if size is None:
        return decode_crops(source, lambda height, width: [(0, 0, height, width)], None)[0]
    return decode_crops(source, _centred, [(size, size)])[0]


def decode_crops(
    source: Source,
    windows: Callable[[int, int], Sequence[Window]],
    sizes: Sequence[tuple[int, int]] | None,
) -> list[Tensor]:
    """Windows of one picture, decoded once, each (3, *size) uint8.

    The resize is the antialiased triangle filter. A JPEG of which every window has at least twice its size is decoded
    at 1/2, 1/4 or 1/8, so that every window still has at least its size in pixels: libjpeg averages within its blocks
    for that. It was faster than decoding all pixels wherever it is possible.

    Args:
        source: a file's content or its path.
        windows: from the height and width of the upright picture to the windows.
        sizes: height and width of each result; null leaves the windows as large as they are.

    Raises:
        BadPicture: as ``decode``.
    """
    with _opened(source) as file:
        with _reasons():
            image = Image.open(file, formats=FORMATS)  # reads the header and refuses decompression bombs
            jpeg = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
            if not jpeg:
                image.load()  # a TIFF turns itself upright here
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
    """The largest of libjpeg's factors that leaves every window at least the pixels of its shape."""
    room = min(min(w[2] // shape[0], w[3] // shape[1]) for w, shape in zip(windows, shapes))
    return max(factor for factor in (1, 2, 4, 8) if factor <= max(room, 1))


def _cut(pixels: Tensor, window: Window, shape: tuple[int, int]) -> Tensor:
    top, left, height, width = window
    cut = pixels[:, top : top + height, left : left + width]
    if (height, width) == tuple(shape):
        return cut
    return F.interpolate(cut[None], size=shape, mode="bilinear", antialias=True)[0]


def _cut_reduced(image: Image.Image, window: Window, shape: tuple[int, int], factor: int) -> Tensor:
    """The window in a picture reduced by ``factor``, where its edges may fall between pixels: Pillow can cut there."""
    top, left, height, width = (length / factor for length in window)
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    return _pixels(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box))


def _pixels(rgb: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


# --- colours ----------------------------------------------------------------------------------------


def to_rgb(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes as RGB: 16 bits keep their high byte, transparency is laid on white."""
    if image.mode == "F":
        raise BadPicture("floating-point pixels, whose range is not known")
    if image.mode.startswith("I"):  # where Pillow would clip
        image = Image.fromarray((np.asarray(image, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        transparent = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(transparent, mask=transparent)
    return image.convert("RGB")


def _refuse_zeros(file: BinaryIO) -> None:
    """Refuse a JPEG that goes over into zeros, as a download that broke off leaves it: zeros decode to something."""
    file.seek(-16, os.SEEK_END)
    if not any(file.read()):
        file.seek(0)
        data = file.read()
        if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # no end of image after the last start of a scan
            raise BadPicture("truncated: it ends in zeros")


def _jpeg(file: BinaryIO, image: Image.Image) -> Tensor:
    """All pixels of a grey or colour JPEG; what torchvision refuses, Pillow reads or explains."""
    file.seek(0)
    data = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    try:
        with _stderr() as said:
            pixels = decode_jpeg(data, mode=ImageReadMode.RGB)
    except RuntimeError:
        return _pixels(image.convert("RGB"))
    # Where data are missing between whole markers libjpeg goes on in grey and only says so. (Pillow does not pass that
    # on, so a reduced decode never learns of it. Stray bytes between markers do no harm.)
    if b"premature end" in said or b"bad Huffman" in said:
        raise BadPicture("damaged JPEG data")
    return pixels


# --- files, errors and noise ------------------------------------------------------------------------


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        file = open(source, "rb")  # noqa: PTH123, SIM115  closed below; an error of the caller's is not ours to explain
    except FileNotFoundError:
        raise BadPicture("no such file") from None
    except (OSError, ValueError) as error:
        raise BadPicture(getattr(error, "strerror", None) or str(error)) from None
    with file:
        yield file


@contextmanager
def _reasons() -> Iterator[None]:
    """Whatever a decoder raises, as one short line; its warnings, which would come for every picture, unsaid."""
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
    except Exception as error:  # decoders of damaged files raise nearly everything
        lines = str(error).splitlines()
        raise BadPicture(lines[0][:100] if lines else type(error).__name__) from None


_one_at_a_time = threading.Lock()


@contextmanager
def _stderr() -> Iterator[bytearray]:
    """Catch what a C library writes to the process's stderr; it is there after the block."""
    said = bytearray()
    with _one_at_a_time:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        kept = os.dup(2)
        os.dup2(writing, 2)
        os.close(writing)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            try:
                said += os.read(reading, 65536)
            except BlockingIOError:
                pass
            finally:
                os.close(reading)
