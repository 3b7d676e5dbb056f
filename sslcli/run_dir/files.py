"""Atomic writing: temporary file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sslcli.errors import UserError


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, key: str = "run_dir") -> None:
    """Replace the file ``path`` atomically by what ``write`` writes.

    Args:
        path: the file.
        write: writes the content to the open temporary file.
        key: the config path that chose the place, for the error message.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path, key) as temporary, temporary.open("wb") as file:
        write(file)


@contextmanager
def replacing(path: Path, key: str = "run_dir") -> Iterator[Path]:
    """Yield a temporary path; at the end of the block its file replaces ``path``, on an error it is removed."""
    temporary = path.with_name(temporary_name(path))
    with writable(path, key):
        try:
            yield temporary
            sync_path(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_path(path.parent)


@contextmanager
def replacing_folder(path: Path, key: str = "run_dir") -> Iterator[Path]:
    """Yield a temporary path for a folder; at the end of the block it replaces ``path``, on an error it is removed."""
    temporary, old = path.with_name(temporary_name(path)), path.with_name(f"{temporary_name(path)}.old")
    with writable(path, key):
        try:
            yield temporary
            for file in temporary.rglob("*"):
                sync_path(file)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if old.exists() and not path.exists():
                old.rename(path)
            raise
        sync_path(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def temporary_name(path: Path) -> str:
    """Return the name of this process's temporary file for ``path``; writers may need the suffix."""
    return f".{path.stem}.tmp.{os.getpid()}{path.suffix}"


def is_left_over(name: str, stem: str | None = None) -> bool:
    """Whether ``name`` is that of a temporary file of a killed process, for a file called ``stem`` if that is given.

    Files of other live processes of this machine are not. Files with the id of this process are, because a killed
    process may have had the same id, as in a container; so this process must not be writing there.
    """
    found = re.fullmatch(r"\.(.*)\.tmp(?:\.(\d+).*)?", name, re.DOTALL)
    if found is None or (stem is not None and found[1] != stem):
        return False
    return found[2] is None or not _is_other_live_process(int(found[2]))


def sweep(folder: Path, stem: str) -> None:
    """Remove temporary files of killed processes for files called ``stem`` in ``folder``."""
    for path in folder.iterdir():
        if is_left_over(path.name, stem):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _is_other_live_process(pid: int) -> bool:
    """Whether ``pid`` is the id of a live process other than this one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # a process of another user
        return True
    return pid != os.getpid()


def write_text(path: Path, text: str) -> None:
    """Replace the content of ``path`` by ``text`` atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


@contextmanager
def writable(path: Path, key: str = "run_dir") -> Iterator[None]:
    """Convert an OSError of the file system (full, read-only, no permission) into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{key}: {path} cannot be written: {error.strerror or error}. Make room or choose another place: {key}=..."
        ) from error


@contextmanager
def readable(path: Path, key: str = "run_dir") -> Iterator[None]:
    """Convert an OSError of the file system (no permission, too many open files), or MemoryError, into a UserError.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file cannot be read, which does not say that it is damaged.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, MemoryError) as error:
        reason = "there is not enough memory" if isinstance(error, MemoryError) else error.strerror or error
        raise UserError(f"{key}: {path} cannot be read: {reason}.") from error


def sync_path(path: Path) -> None:
    """Wait until the content of a file, or the entries of a folder, are on the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if path.is_dir():
            sync_folder(descriptor)
        else:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(descriptor: int) -> None:
    """Wait until the entries of an open folder are on the disk, where its file system can be asked to (not all can)."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
            raise
