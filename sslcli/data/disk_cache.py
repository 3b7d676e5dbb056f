"""What was once worked out about the data, kept as arrays beside the other caches of the user."""

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

Arrays = dict[str, np.ndarray]


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/sslcli``, by default ``~/.cache/sslcli``.

    Raises:
        RuntimeError: there is no home folder.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    caches = Path(home) if home.startswith("/") else Path.home() / ".cache"  # a relative one is to be ignored
    return caches / "sslcli"


def load(name: bytes) -> Arrays | None:
    """What was saved under this name; nothing if it is damaged, somebody else's or not there."""
    try:
        with np.load(_place(name), allow_pickle=False) as file:
            arrays = dict(file)
        return arrays if arrays.pop("name").tobytes() == name else None
    except Exception:  # a damaged archive raises nearly everything, and what is not kept can be worked out again
        return None


def save(name: bytes, arrays: Arrays) -> None:
    """Replace what is kept under this name at once or not at all; where nothing can be written, one line says so."""
    try:
        with replacing(_place(name)) as file:
            np.savez(file, allow_pickle=False, name=np.frombuffer(name, np.uint8), **arrays)
    except (OSError, RuntimeError) as error:  # read-only, full, or no home folder
        reason = getattr(error, "strerror", None) or error
        print(f"warning: the index of the data is not kept for the next start: {reason}.", file=sys.stderr)


def stored(
    path: Path,
    purpose: str,
    make: Callable[[], Arrays],
    still: Callable[[Arrays], bool] = lambda arrays: True,
) -> Arrays:
    """What ``make`` finds in the file ``path``, from the cache for as long as its size and time stay the same.

    Args:
        path: the file.
        purpose: what is looked for in it; another one is kept apart.
        make: looks.
        still: whether what was kept holds for other reasons, too.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    stamp = np.array([status.st_size, status.st_mtime_ns])
    name = purpose.encode() + b"\0" + os.fsencode(path.resolve())
    kept = load(name)
    if kept is not None and np.array_equal(kept.pop("stamp", 0), stamp) and still(kept):
        return kept
    arrays = make()
    save(name, {**arrays, "stamp": stamp})
    return arrays


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to fill that takes the place of ``path`` when the block ends well, whoever else writes there; or nothing.

    Raises:
        OSError: it cannot be written.
    """
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


def _place(name: bytes) -> Path:
    return cache_dir() / f"{hashlib.sha256(name).hexdigest()[:32]}.npz"
