"""Opens the files of a run directory by their names in it, and never through a link.

The path *to* a run directory may go through links. In a run directory that somebody else made, a link could lead what
is written, appended or removed to any file of the user. So the directory is opened once, every name is looked up
relative to it, and what is a link, a FIFO, a socket or a device is refused before it is opened.

Names may have folders: ``checkpoints/last``. All functions raise UserError for a link and for what is no regular file.
"""

from __future__ import annotations

import os
import stat
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sslcli.errors import UserError
from sslcli.run_dir.files import is_left_over, readable, sync_folder, temporary_name, writable

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO that takes a file's place meanwhile does not block
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


_checks: dict[Path, Callable[[], None]] = {}  # folder -> what is called before each write into it


@contextmanager
def checked(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Call ``check`` before every write into ``folder`` inside this block, by any thread; it may raise an error."""
    _checks[folder] = check
    try:
        yield
    finally:
        del _checks[folder]


def _check(folder: Path) -> None:
    _checks.get(folder, lambda: None)()


@contextmanager
def opened(folder: Path, name: str, flags: int = os.O_RDONLY, mode: str = "rb") -> Iterator[BinaryIO]:
    """Open a regular file.

    Raises:
        FileNotFoundError: there is no such file, and ``flags`` do not create it.
    """
    with _parent(folder, name) as (descriptor, last):
        _refuse(descriptor, last, folder / name)
        file = os.fdopen(os.open(last, flags | _FLAGS, 0o666, dir_fd=descriptor), mode)
    with file:
        _refuse(file.fileno(), None, folder / name)
        yield typing.cast(BinaryIO, file)


def read(folder: Path, name: str) -> bytes | None:
    """Return the content of a file; None if there is none.

    Raises:
        UserError: the file cannot be read.
    """
    with _if_there(folder / name), opened(folder, name) as file:
        return file.read()
    return None


def append(folder: Path, name: str, content: bytes) -> None:
    """Append to a file, which is created if there is none.

    A file with further names (hard links) is replaced by a copy first, so that only the run's own name changes.

    Raises:
        UserError: the file cannot be written.
    """
    _check(folder)
    with writable(folder / name):
        with opened(folder, name, os.O_RDWR | os.O_APPEND | os.O_CREAT, "ab+") as file:
            if os.fstat(file.fileno()).st_nlink == 1:
                file.write(content)
                return
            file.seek(0)
            before = file.read()
        write(folder, name, lambda copy: copy.write(before + content))


def write(folder: Path, name: str, writer: Callable[[BinaryIO], object]) -> None:
    """Replace a file atomically by what ``writer`` writes; its folder must exist.

    Raises:
        UserError: the file cannot be written.
    """
    _check(folder)
    with writable(folder / name), _parent(folder, name) as (descriptor, last):
        _refuse(descriptor, last, folder / name)
        temporary = temporary_name(Path(last))
        with suppress(FileNotFoundError):  # of a killed process with this process's id
            os.unlink(temporary, dir_fd=descriptor)
        made = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666, dir_fd=descriptor)
        try:
            with os.fdopen(made, "wb") as file:
                writer(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, last, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=descriptor)
            raise
        sync_folder(descriptor)


def write_bytes(folder: Path, name: str, content: bytes) -> None:
    """Write bytes to a file atomically."""
    write(folder, name, lambda file: file.write(content))


def write_text(folder: Path, name: str, text: str) -> None:
    """Replace the content of a file by ``text`` atomically."""
    write_bytes(folder, name, text.encode())


def remove(folder: Path, name: str) -> None:
    """Remove a file, if there is one."""
    with suppress(FileNotFoundError), _parent(folder, name) as (descriptor, last):
        os.unlink(last, dir_fd=descriptor)


def move(folder: Path, name: str, target: str) -> None:
    """Give a file or a folder of ``folder`` another name there; a logger's folder, which may be a link, too."""
    with _parent(folder, name) as (source, last), _parent(folder, target) as (destination, new):
        os.rename(last, new, src_dir_fd=source, dst_dir_fd=destination)


def make_folder(folder: Path, name: str) -> None:
    """Make a folder and those above it; ``folder`` itself must exist."""
    for end in range(1, name.count("/") + 2):
        with _parent(folder, "/".join(name.split("/")[:end])) as (descriptor, last):
            with suppress(FileExistsError):
                os.mkdir(last, dir_fd=descriptor)
            _refuse(descriptor, last, folder / name, kind=stat.S_ISDIR)


def names(folder: Path, name: str = "") -> list[str]:
    """Return the names in a folder, sorted; none if there is no such folder.

    Raises:
        UserError: the folder cannot be read.
    """
    inner = f"{name}/any" if name else "any"
    with _if_there(folder / name), _parent(folder, inner) as (descriptor, _):
        return sorted(os.listdir(descriptor))  # noqa: PTH208
    return []


def sweep(folder: Path, name: str = "") -> None:
    """Remove temporary files of killed processes; no other process may write in this folder."""
    for left in filter(is_left_over, names(folder, name)):
        remove(folder, f"{name}/{left}" if name else left)


def refuse_links(folder: Path, *, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Check, before anything is done, that no name and no name in one of the folders is a link, a FIFO or a device."""
    within = [f"{name}/{inner}" for name in folders for inner in names(folder, name)]
    for name in (*files, *within):
        with suppress(FileNotFoundError, NotADirectoryError), _parent(folder, name) as (descriptor, last):
            _refuse(descriptor, last, folder / name, kind=lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def _if_there(path: Path) -> Iterator[None]:
    """End a block where there is no such file or folder; convert other errors of the file system to a UserError."""
    with suppress(FileNotFoundError), readable(path), suppress(NotADirectoryError):
        yield


@contextmanager
def _parent(folder: Path, name: str) -> Iterator[tuple[int, str]]:
    """Open the folder of a name; yield its descriptor and the last part of the name."""
    *above, last = name.split("/")
    assert last not in ("", ".", "..") and not {"", ".", ".."} & set(above), name
    descriptor = os.open(folder, _FOLDER)
    try:
        for count, part in enumerate(above, start=1):
            _refuse(descriptor, part, folder.joinpath(*above[:count]), kind=stat.S_ISDIR)
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor, last
    finally:
        os.close(descriptor)


def _refuse(descriptor: int, name: str | None, path: Path, kind: Callable[[int], bool] = stat.S_ISREG) -> None:
    """Raise UserError if what is at ``name``, or is open at ``descriptor``, is not of this kind; nothing is of any."""
    try:
        found = os.fstat(descriptor) if name is None else os.lstat(name, dir_fd=descriptor)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise UserError(
            f"run_dir: {path} is a link, and a run's own files and folders may not be: it could lead anywhere. "
            "Put what it leads to in its place, or let a link lead to the whole run directory."
        )
    if not kind(found.st_mode):
        what = "folder" if kind == stat.S_ISDIR else "regular file"
        raise UserError(f"run_dir: {path} is not a {what}. Move it away.")
