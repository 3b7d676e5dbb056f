"""Where the pictures lie in parquet and arrow files, so that each can be read alone.

A row group of a parquet file, a hundred pictures or a hundred megabytes, is decoded as a whole, so fetching samples in
random order from it costs each a hundred times its bytes or more. But pictures do not compress, and Hugging Face's
``datasets`` leaves them as they are, in arrow and from version 5 on in parquet: there a file is read through once, each
picture is looked for in the file's own bytes behind the one before, and is read from that place from then on. Where
they are not found, being compressed or in a dictionary, they are unpacked once into a plain file.
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
from sslcli.data.pictures.byte_ranges import Part
from sslcli.data.pictures.table import Table
from sslcli.errors import UserError

_FAR = 2**28  # bytes between two pictures of a column: other columns, headers
_LAYOUT = "table 1"  # of what is remembered

Place = tuple[int, int]  # start and size


def index_tables(
    paths: Sequence[Path], column: str | None, label: str | None, copies: str | None
) -> tuple[list[Path], list[Part]]:
    """The files to read the pictures of some tables from, and where they lie in them.

    Args:
        paths: the tables.
        column: as of ``Table``.
        label: as of ``Table``.
        copies: a folder for unpacked pictures; null is the user's cache.

    Raises:
        UserError: as of ``Table``, or there is no room for a copy.
    """
    folder = Path(copies).expanduser() if copies else cache_dir() / "tables"
    files, parts = [], []
    with alone(folder):
        for path in tqdm(paths, desc="looking into tables", unit=" tables", disable=None):
            file, part = _index(path, column, label, folder)
            files.append(file)
            parts.append(part)
    copied = sum(file != path for file, path in zip(files, paths))
    if copied:
        print(
            f"{copied} of {len(files)} tables are compressed; their pictures lie unpacked in {folder}", file=sys.stderr
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
        return {"start": start, "size": size, "label": words, "copied": np.array(copied)}

    def still(kept: Arrays) -> bool:
        return not kept["copied"] or (copy.is_file() and copy.stat().st_size == kept["size"].sum())

    try:
        found = stored(path, f"{_LAYOUT} {column} {label}", make, still)
    except OSError as error:
        raise UserError(f"dataset.path: {path} cannot be read ({error.strerror or error}).") from None
    return copy if found.pop("copied") else path, Part(**found)


def find_places(path: Path, pictures: Iterable[bytes]) -> list[Place] | None:
    """Where the bytes of the pictures stand in a file, one behind the other; None if one does not."""
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
    """Write the pictures one behind the other: the whole file or none."""
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
