"""Finds the pictures below a folder. Links are followed, loops are cut, and the order depends on the names only."""

from __future__ import annotations

import os
import zlib
from bisect import bisect
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from sslcli.data.pictures.first_bytes import OTHERS, extension_of, is_picture

UNREADABLE = -1  # used as the number of entries of a folder that cannot be listed
Files = list[tuple[bytes, int, int]]  # name, device and inode; the inode of a link is that of its target


@dataclass(frozen=True)
class Folder:
    """The content of one folder at the time when it was listed."""

    mtime_ns: int
    entries: int  # number of entries of any kind
    names: int = 0  # ``sum_of`` their names
    pictures: bytes = b""  # sorted names, joined by NUL to one object
    subfolders: tuple[bytes, ...] = ()
    places: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.uint64))  # (N, 2) device and inode of each


def sum_of(names: list[bytes]) -> int:
    """Return a number that changes with any name in a folder, and does not depend on their order."""
    return sum(map(zlib.crc32, names))


@dataclass
class Tally:
    """What was found below a folder, counted by extension."""

    pictures: Counter[bytes] = field(default_factory=Counter)
    left_out: Counter[bytes] = field(default_factory=Counter)
    by_content: int = 0  # pictures that were told by their first bytes
    broken: int = 0  # named like pictures, but links to nowhere, or no files
    hidden: int = 0  # hidden files that are named like pictures


def scan(root: bytes, extensions: frozenset[bytes]) -> tuple[dict[bytes, Folder], Tally]:
    """List every folder below ``root``, by its path relative to ``root``, which itself is ``b""``.

    Hidden files and folders, broken links and files that are not regular are skipped. A folder that can be reached by
    several links is listed once, under its own path if this is below ``root``.
    """
    found: dict[bytes, Folder] = {}
    tally = Tally()
    visited = set()
    waiting, links = deque([b""]), deque[bytes]()
    with tqdm(desc="looking for pictures", unit=" files", disable=None) as bar:
        while waiting or links:
            path = waiting.popleft() if waiting else links.popleft()
            try:
                status = os.stat(os.path.join(root, path))  # noqa: PTH116, PTH118  bytes, and a million of them
            except OSError:
                found[path] = Folder(0, UNREADABLE)
                continue
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            found[path], below, linked = _list(root, path, status, extensions, tally)
            waiting.extend(below)
            links.extend(linked)
            bar.update(max(found[path].entries, 0))
    return found, tally


def _list(
    root: bytes, path: bytes, status: os.stat_result, extensions: frozenset[bytes], tally: Tally
) -> tuple[Folder, list[bytes], list[bytes]]:
    """List one folder; return it, the paths of its sub-folders, and the paths of its links to folders."""
    files: Files = []
    below: list[bytes] = []
    linked: list[bytes] = []
    entries = names = 0
    try:
        with os.scandir(os.path.join(root, path)) as listing:  # noqa: PTH118
            for entry in listing:
                entries += 1
                names += zlib.crc32(entry.name)
                try:
                    if not entry.name.startswith(b".") and entry.is_dir():
                        (linked if entry.is_symlink() else below).append(entry.name)
                    elif _is_picture(entry, extensions, tally):
                        target = entry.stat() if entry.is_symlink() else None
                        device, inode = (target.st_dev, target.st_ino) if target else (status.st_dev, entry.inode())
                        files.append((entry.name, device, inode))
                except OSError:  # a link to itself, or through a folder that cannot be read
                    tally.broken += extension_of(entry.name) in extensions
    except OSError:
        return Folder(status.st_mtime_ns, UNREADABLE), [], []
    files.sort()
    pictures = b"\0".join(name for name, _, _ in files)
    places = np.array([place for _, *place in files], np.uint64).reshape(-1, 2)
    folder = Folder(status.st_mtime_ns, entries, names, pictures, tuple(sorted(below + linked)), places)
    inside = os.path.join(path, b"")  # noqa: PTH118
    return folder, [inside + name for name in sorted(below)], [inside + name for name in sorted(linked)]


def _is_picture(entry: os.DirEntry[bytes], extensions: frozenset[bytes], tally: Tally) -> bool:
    """Tell whether an entry that is no folder is a picture, and count it."""
    extension = extension_of(entry.name)
    is_known = extension in extensions
    if entry.name.startswith(b"."):
        tally.hidden += is_known
        return False
    if not entry.is_file():
        tally.broken += is_known
        return False
    if not is_known and (extension in OTHERS or not is_picture(entry.path)):
        tally.left_out[extension] += 1
        return False
    tally.pictures[extension] += 1
    tally.by_content += not is_known
    return True


Run = tuple[bytes, list[bytes], np.ndarray]  # a folder, some of its names, and their places (n, 2)


def in_order(folders: dict[bytes, Folder]) -> Iterator[Run]:
    """Yield all pictures sorted by path, as (folder, names, places) for each run without a sub-folder in between."""
    stack = [_runs(folders, b"")]  # no recursion: folders may be nested deeper than Python's stack
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        elif isinstance(step, bytes):
            stack.append(_runs(folders, step))
        else:
            yield step


def _runs(folders: dict[bytes, Folder], path: bytes) -> Iterator[bytes | Run]:
    """Yield the runs of one folder and, at their place in the order, the paths of its sub-folders."""
    folder = folders[path]
    names = folder.pictures.split(b"\0") if folder.pictures else []
    start = 0
    for name in folder.subfolders:
        below = os.path.join(path, name)  # noqa: PTH118
        if below not in folders:  # listed under another path
            continue
        stop = bisect(names, name, start)
        if stop > start:
            yield path, names[start:stop], folder.places[start:stop]
        yield below
        start = stop
    if start < len(names):
        yield path, names[start:], folder.places[start:]
