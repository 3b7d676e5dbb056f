"""Opens files of data, and nothing else: a pipe or a device may wait for ever, and opening one may do things."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: it does not exist, cannot be read, or is no regular file; the latter is not opened at all.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116  a path object would be a third of the time
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a folder, opening says what it is
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return open(path, "rb")  # noqa: PTH123


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Read a whole file; raises what ``open_regular`` raises."""
    with open_regular(path) as file:
        return file.read()
