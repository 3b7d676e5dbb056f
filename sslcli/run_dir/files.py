"""Writing that is never half done: temporary file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sslcli.errors import UserError


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, key: str = "run_dir") -> None:
    """Replace ``path`` with what ``write`` puts into the file that it is given; all of it or nothing.

    Args:
        path: the file.
        write: fills the open file.
        key: the config path that chose the place, for the message if it cannot be written.
    """
    with replacing(path, key) as temporary, temporary.open("wb") as file:
        write(file)


@contextmanager
def replacing(path: Path, key: str = "run_dir") -> Iterator[Path]:
    """A name in the same folder for a file that takes the place of ``path`` if all goes well, and is gone if not."""
    temporary = path.with_name(f".{path.stem}.tmp.{os.getpid()}{path.suffix}")  # readers may go by the suffix
    with writable(path, key):
        try:
            yield temporary
            sync_path(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_path(path.parent)


def sweep(folder: Path, stem: str = "*") -> None:
    """Remove what killed writers of files called ``stem`` left behind in ``folder``.

    What another live process of this machine is writing stays. This process's id may have been that of a killed one,
    as in a container, so that it must not be writing there itself.
    """
    for path in folder.glob(f".{stem}.tmp*"):
        writer = re.search(r"\.tmp\.(\d+)", path.name)
        if writer is None or not _is_another(int(writer[1])):
            path.unlink(missing_ok=True)


def _is_another(pid: int) -> bool:
    """Whether a process of this id lives and is not this one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return pid != os.getpid()


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` with ``text``, all of it or nothing."""
    write_atomically(path, lambda file: file.write(text.encode()))


@contextmanager
def writable(path: Path, key: str = "run_dir") -> Iterator[None]:
    """Turn what the file system refuses (full, read-only, no permission) into a message for the user."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{key}: {path} cannot be written: {error.strerror or error}. Make room or choose another place: {key}=..."
        ) from error


def sync_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
