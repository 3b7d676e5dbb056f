"""Checks, before anything is computed, that a result can be written to its place and nothing else is lost there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sslcli.errors import UserError
from sslcli.run_dir.files import readable, writable

_HEAD = 64  # bytes by which a format is known


def check_writable(path: Path, key: str) -> None:
    """Check that a file can be written, by a nameless file in its folder, or in the nearest one that exists.

    Args:
        path: the file.
        key: the config path that chose the place, for the message.

    Raises:
        UserError: it cannot, for example because the disk is full or read-only, or the name is too long.
    """
    with writable(path, key):
        with suppress(FileNotFoundError):
            path.lstat()
        folder = next(above for above in path.absolute().parents if above.exists())
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()


def check_output(path: Path, begins: bytes, key: str = "output") -> bool:
    """Check that a file that a user named can be written; return whether it replaces an earlier file of its format.

    Args:
        path: the file.
        begins: a regular expression for the first bytes of files of this format.
        key: the config path that names it.

    Raises:
        UserError: it cannot be written, is a folder, or is a file of another format.
    """
    check_writable(path, key)
    if path.is_dir():
        raise UserError(f"{key}: {path} is a folder. Name a file, such as {path / f'result{path.suffix}'}.")
    if not path.exists():
        return False
    if not path.is_file():
        raise UserError(f"{key}: {path} is no regular file. Choose another name.")
    with readable(path, key), path.open("rb") as file:
        head = file.read(_HEAD)
    if head and not re.match(begins, head, re.DOTALL | re.IGNORECASE):
        raise UserError(
            f"{key}: {path} is a file of another kind and would be lost. Choose another name, or remove it."
        )
    return bool(head)


@contextmanager
def folder_for(path: Path, key: str = "output") -> Iterator[None]:
    """Make the folder of a file; where the block raises an error, folders that were made and are empty are removed.

    Raises:
        UserError: it cannot be made.
    """
    missing = [folder for folder in path.absolute().parents if not folder.exists()]
    with writable(path.parent, key):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise
