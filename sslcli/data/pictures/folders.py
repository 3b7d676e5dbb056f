"""Finds the pictures below a folder. Links are followed, loops are cut, and the order depends on the names only."""

from __future__ import annotations

import os
from bisect import bisect
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

UNREADABLE = -1  # used as the number of entries of a folder that cannot be listed


@dataclass(frozen=True)
class Folder:
    """The content of one folder at the time when it was listed."""

    mtime_ns: int
    entries: int  # number of entries of any kind
    pictures: bytes = b""  # sorted names, joined by NUL to one object
    subfolders: tuple[bytes, ...] = ()


def scan(root: bytes, extensions: frozenset[bytes]) -> dict[bytes, Folder]:
    """List every folder below ``root``, by its path relative to ``root``, which itself is ``b""``.

    Hidden files and folders, broken links and files that are not regular are skipped. A folder that can be reached by
    several links is listed once, under its own path if this is below ``root``.
    """
    found: dict[bytes, Folder] = {}
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
            found[path], below, linked = _list(root, path, status.st_mtime_ns, extensions)
            waiting.extend(below)
            links.extend(linked)
            bar.update(max(found[path].entries, 0))
    return found


def _list(
    root: bytes, path: bytes, mtime_ns: int, extensions: frozenset[bytes]
) -> tuple[Folder, list[bytes], list[bytes]]:
    """List one folder; return it, the paths of its sub-folders, and the paths of its links to folders."""
    pictures: list[bytes] = []
    below: list[bytes] = []
    linked: list[bytes] = []
    entries = 0
    try:
        with os.scandir(os.path.join(root, path)) as listing:  # noqa: PTH118
            for entry in listing:
                entries += 1
                name = entry.name
                if name.startswith(b"."):
                    continue
                try:
                    if entry.is_dir():
                        (linked if entry.is_symlink() else below).append(name)
                    elif os.path.splitext(name)[1].lower() in extensions and entry.is_file():  # noqa: PTH122
                        pictures.append(name)
                except OSError:  # a link to itself, or through a folder that cannot be read
                    continue
    except OSError:
        return Folder(mtime_ns, UNREADABLE), [], []
    folder = Folder(mtime_ns, entries, b"\0".join(sorted(pictures)), tuple(sorted(below + linked)))
    inside = os.path.join(path, b"")  # noqa: PTH118
    return folder, [inside + name for name in sorted(below)], [inside + name for name in sorted(linked)]


def in_order(folders: dict[bytes, Folder]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yield all pictures sorted by path, as (folder, names) for each run of names without a sub-folder in between."""
    stack = [_runs(folders, b"")]  # no recursion: folders may be nested deeper than Python's stack
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
        elif isinstance(step, bytes):
            stack.append(_runs(folders, step))
        else:
            yield step


def _runs(folders: dict[bytes, Folder], path: bytes) -> Iterator[bytes | tuple[bytes, list[bytes]]]:
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
            yield path, names[start:stop]
        yield below
        start = stop
    if start < len(names):
        yield path, names[start:]
