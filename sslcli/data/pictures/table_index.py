"""Finds the byte ranges of pictures in parquet and arrow files, so that each picture can be read alone.

A row group of a parquet file, a hundred pictures or a hundred megabytes, can only be decoded as a whole. So reading
samples in random order would decode a hundred times as many bytes as are used, or more. But pictures hardly compress
further, and Hugging Face's ``datasets`` stores them uncompressed in arrow and, from version 5 on, in parquet. Such a
file is read once: each picture is searched for in the bytes of the file after the previous one, and its offset is
cached. If a picture is not found, because the column is compressed or uses a dictionary, all pictures are copied once
into a plain file.
"""

from __future__ import annotations

import hashlib
import mmap
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sslcli.data.disk_cache import Arrays, cache_dir, replacing, stored
from sslcli.data.download import alone
from sslcli.data.fingerprints import of_files
from sslcli.data.pictures.byte_ranges import Part
from sslcli.data.pictures.table import Table
from sslcli.errors import UserError

_FAR = 2**28  # maximum number of bytes between two pictures: other columns, headers
_LAYOUT = "table 3"  # version of the cached arrays

Place = tuple[int, int]  # start and size


def index_tables(
    paths: Sequence[Path], column: str | None, label: str | None, copies: str | None
) -> tuple[list[Path], list[Part]]:
    """Return for each table the file from which its pictures are read, and their byte ranges in this file.

    Args:
        paths: the tables.
        column: as in ``Table``.
        label: as in ``Table``.
        copies: the folder for unpacked pictures; None is the user's cache.

    Raises:
        UserError: as in ``Table``, or a copy cannot be written.
    """
    folder = Path(copies).expanduser() if copies else cache_dir() / "tables"
    files, parts = [], []
    with alone(folder):
        for path in tqdm(paths, desc="reading tables", unit=" tables", disable=None):
            file, part = _index(path, column, label, folder)
            files.append(file)
            parts.append(part)
    copied = sum(file != path for file, path in zip(files, paths))
    if copied:
        print(
            f"{copied} of {len(files)} tables are compressed; their pictures are unpacked in {folder}", file=sys.stderr
        )
    return files, parts


def _index(path: Path, column: str | None, label: str | None, folder: Path) -> tuple[Path, Part]:
    name = f"{path.resolve()}\0{column}".encode(errors="surrogateescape")
    copy = folder / f"{hashlib.sha256(name).hexdigest()[:16]}-{path.stem}.pictures"

    def make() -> Arrays:
        table = Table(path, column, label)
        places = find_places(path, table.pictures())
        copied = places is None
        if places is None:
            places = _unpack(table, copy)
        start, size = np.array(places, np.int64).reshape(-1, 2).T
        classes = table.classes()
        words = np.zeros(len(places), "S1") if classes is None else classes
        names = np.array([name.encode() for name in table.names()], "S")
        pieces = _pieces(copy) if copied else ""
        return {"start": start, "size": size, "label": words, "names": names, "copied": np.array(pieces)}

    def has_copy(cached: Arrays) -> bool:
        pieces = cached["copied"].item()
        is_whole = copy.is_file() and copy.stat().st_size == cached["size"].sum()
        return not pieces or (is_whole and _pieces(copy) == pieces)

    try:
        found = stored(path, f"{_LAYOUT} {column} {label}", make, has_copy)
    except OSError as error:
        raise UserError(f"dataset.path: {path} cannot be read ({error.strerror or error}).") from None
    return copy if found.pop("copied").item() else path, Part(**found)


def _pieces(copy: Path) -> str:
    """Return a digest of 64 drawn pieces of a copy, by which it is known again."""
    return of_files([copy], limit=0)


def find_places(path: Path, pictures: Iterable[bytes]) -> list[Place] | None:
    """Return the places of the pictures in a file, searched one after the other; None if one is not found."""
    places, at = [], 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        for picture in pictures:
            at = raw.find(picture, at, at + len(picture) + _FAR)
            if at < 0:
                return None
            places.append((at, len(picture)))
            at += len(picture)
    return places


def _unpack(table: Table, copy: Path) -> list[Place]:
    """Write the pictures of a table one after the other into ``copy``, atomically; return their places.

    Raises:
        UserError: the file cannot be written.
    """
    places, at = [], 0
    try:
        with replacing(copy) as file:
            for picture in table.pictures():
                file.write(picture)
                places.append((at, len(picture)))
                at += len(picture)
    except OSError as error:
        raise UserError(
            f"dataset.cache_dir: the pictures of {table.path} are compressed and cannot be unpacked to {copy.parent} "
            f"({error.strerror or error}). Choose another place, or write the table again with compression='none'."
        ) from None
    return places
