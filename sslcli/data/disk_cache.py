"""A cache on disk for arrays that are computed from the data, in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sslcli.errors import UserError

Arrays = dict[str, np.ndarray]
_left_out: list[str] | None = None  # the files that were not written inside ``reading_only``; None outside


@contextmanager
def reading_only() -> Iterator[list[str]]:
    """In this block nothing is downloaded, unpacked or cached; yields the indices of data that it leaves unwritten."""
    global _left_out
    before, _left_out = _left_out, []
    try:
        yield _left_out
    finally:
        _left_out = before


def is_read_only() -> bool:
    """Whether this is inside ``reading_only``."""
    return _left_out is not None


def refuse(what: str) -> None:
    """Raise UserError inside ``reading_only``, where the data cannot be read without writing ``what``."""
    if is_read_only():
        raise UserError(f"plan=true writes nothing, and these data need {what}. Start the run, or make it beforehand.")


def cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/sslcli``, by default ``~/.cache/sslcli``.

    Raises:
        RuntimeError: there is no home folder.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    caches = Path(home) if home.startswith("/") else Path.home() / ".cache"  # the XDG standard ignores relative paths
    return caches / "sslcli"


def load(name: bytes) -> Arrays | None:
    """Load the arrays that were saved under ``name``; None if they are missing, damaged or saved under another name."""
    try:
        with np.load(_file_of(name), allow_pickle=False) as file:
            arrays = dict(file)
        return arrays if arrays.pop("name").tobytes() == name else None
    except Exception:  # damaged archives raise many kinds of errors, and the arrays can be computed again
        return None


def save(name: bytes, arrays: Arrays) -> None:
    """Save arrays under ``name`` atomically; print a warning if they cannot be written."""
    if _left_out is not None:
        _left_out.append(str(_file_of(name)))
        return
    try:
        with replacing(_file_of(name)) as file:
            np.savez(file, allow_pickle=False, name=np.frombuffer(name, np.uint8), **arrays)
    except (OSError, RuntimeError) as error:  # read-only, full, or no home folder
        reason = getattr(error, "strerror", None) or error
        print(f"warning: the index of the data cannot be cached for the next start: {reason}.", file=sys.stderr)


def stored(
    path: Path,
    purpose: str,
    make: Callable[[], Arrays],
    is_valid: Callable[[Arrays], bool] = lambda arrays: True,
) -> Arrays:
    """Return what ``make`` computes from the file ``path``, cached while the file's size and time do not change.

    Args:
        path: the file.
        purpose: what is computed from it; different purposes are cached separately.
        make: computes the arrays.
        is_valid: a further condition for using cached arrays.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    stamp = np.array([status.st_size, status.st_mtime_ns])
    name = purpose.encode() + b"\0" + os.fsencode(path.resolve())
    cached = load(name)
    if cached is not None and np.array_equal(cached.pop("stamp", 0), stamp) and is_valid(cached):
        return cached
    arrays = make()
    save(name, {**arrays, "stamp": stamp})
    return arrays


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file that replaces ``path`` at the end of the block, or is removed on an error.

    Several processes may write the same ``path`` at the same time.

    Raises:
        OSError: the file cannot be written.
        UserError: this is inside ``reading_only``.
    """
    refuse(str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _file_of(name: bytes) -> Path:
    return cache_dir() / f"{hashlib.sha256(name).hexdigest()[:32]}.npz"
