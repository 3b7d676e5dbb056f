"""Opens the file of a picture, and says in one short line why one cannot be read."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError, features

from sslcli.data.regular_files import open_regular

# Not all formats of Pillow, because an EPS file that is called .jpg would start Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", *(("AVIF",) if features.check("avif") else ()))

Source = bytes | str | os.PathLike[str]  # content of a file, or its path


class BadPicture(Exception):
    """A file is not a complete picture; the message is a short reason."""


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """Open a picture for reading.

    Raises:
        BadPicture: there is no such file, or it cannot be opened.
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        file = open_regular(source)  # closed below; errors of the caller are not caught here
    except FileNotFoundError:
        raise BadPicture("no such file") from None
    except (OSError, ValueError) as error:
        raise BadPicture(getattr(error, "strerror", None) or str(error)) from None
    with file:
        yield file


@contextmanager
def reasons() -> Iterator[None]:
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
        raise BadPicture("too many pixels; dataset.max_pixels=... allows more") from None
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        lines = str(error).splitlines()
        raise BadPicture(lines[0][:100] if lines else type(error).__name__) from None


_stderr_lock = threading.Lock()


@contextmanager
def captured_stderr() -> Iterator[bytearray]:
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
