"""The paths and labels of pictures in a few arrays; every worker would copy a list of a million Python strings."""

from __future__ import annotations

import codecs
import os
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslcli.data.fingerprints import LIMIT, of_many
from sslcli.data.pictures.folders import UNREADABLE, Folder, in_order, scan
from sslcli.data.pictures.index_cache import Snapshot, load, save
from sslcli.errors import UserError

EXTENSIONS = frozenset(b".jpg .jpeg .jfif .png .webp .bmp .tif .tiff .gif .ppm .pgm .pbm .pnm".split())


@dataclass(frozen=True)
class Index:
    """The paths of N pictures, concatenated in one array, and their labels.

    Args:
        root: the folder that paths are relative to.
        blob: (bytes,) uint8, the concatenated paths as the file system gives them; they need not be UTF-8.
        offsets: (N + 1,) int64, where each path begins.
        labels: (N,) int64, ranks of the parent folders' names in sorted order; None if there is only one name.
    """

    root: bytes
    blob: np.ndarray
    offsets: np.ndarray
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def source(self, i: int) -> str:
        """Return the i-th path, for opening the file."""
        return os.fsdecode(os.path.join(self.root, self.blob[self.offsets[i] : self.offsets[i + 1]].tobytes()))  # noqa: PTH118

    def where(self, i: int) -> str:
        """Return the i-th path, for printing: special bytes are escaped, so that it is one line."""
        return _printable(os.fsencode(self.source(i)))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the parent folders by label, as they are printed; () if there are no labels."""
        if self.labels is None:
            return ()
        _, first = np.unique(self.labels.numpy(), return_index=True)
        parents = (os.path.basename(os.path.dirname(self.source(i))) for i in first)  # noqa: PTH119, PTH120
        return tuple(_printable(os.fsencode(parent)) for parent in parents)

    def fingerprint(self, limit: int = LIMIT) -> str:
        """Return a text that changes with the name and with the content of any picture; see ``of_many``."""
        names = self.offsets.tobytes() + self.blob.tobytes()
        return f"{len(self)} pictures, {of_many(len(self), self.source, names, limit)}"

    def old_fingerprint(self) -> str:
        """Return the text of old checkpoints, which changes with the name of any picture only."""
        names = zlib.crc32(self.offsets.tobytes(), zlib.crc32(self.blob.tobytes()))
        return f"{len(self)} pictures, names {names:08x}"


def _printable(path: bytes) -> str:
    text = path.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def index(path: str) -> Index:
    """Index the pictures below a folder, or those that a text file lists.

    Raises:
        UserError: the folder or file does not exist, cannot be read, or has no pictures.
    """
    place = Path(path).expanduser()
    try:
        if place.is_file():
            return _read_list(place)
        if not place.is_dir():
            raise UserError(f"dataset.path: there is no folder {place}.")
        os.scandir(place).close()
    except PermissionError:
        raise UserError(f"dataset.path: {place} cannot be read: permission denied.") from None
    return _from_folder(place)


def _from_folder(place: Path) -> Index:
    root = os.fsencode(place.absolute())
    snapshot = load(root, EXTENSIONS)
    if snapshot is None:
        folders = scan(root, EXTENSIONS)
        snapshot = _snapshot(root, folders)
        save(root, EXTENSIONS, snapshot)
    unread = [name for name, entries in zip(snapshot.folders, snapshot.entries) if entries == UNREADABLE]
    if unread:
        first = _printable(os.path.join(root, unread[0]))  # noqa: PTH118
        more = f" and {len(unread) - 1} more folders" if len(unread) > 1 else ""
        print(f"warning: dataset.path: {first}{more} cannot be read and will be left out.", file=sys.stderr)
    if not len(snapshot.labels):
        kinds = ", ".join(sorted(extension.decode() for extension in EXTENSIONS))
        raise UserError(f"dataset.path: no picture below {place}. Looked for {kinds}.")
    return Index(root, snapshot.blob, snapshot.offsets, _labels(snapshot.labels))


def _snapshot(root: bytes, folders: dict[bytes, Folder]) -> Snapshot:
    blob, lengths, counts, parents = bytearray(), [], [], []
    for folder, names in in_order(folders):
        paths = [os.path.join(folder, name) for name in names]  # noqa: PTH118
        blob += b"".join(paths)
        lengths.append(np.fromiter(map(len, paths), np.int64, len(paths)))
        counts.append(len(paths))
        parents.append(os.path.basename(folder or root))  # noqa: PTH119
    return Snapshot(
        blob=np.frombuffer(bytes(blob), np.uint8),
        offsets=_offsets(np.concatenate(lengths) if lengths else np.zeros(0, np.int64)),
        labels=np.repeat(_numbered(parents), counts),
        names=np.frombuffer(b"\0".join(folders), np.uint8),
        mtimes=np.array([folder.mtime_ns for folder in folders.values()], np.int64),
        entries=np.array([folder.entries for folder in folders.values()], np.int64),
    )


def _read_list(place: Path) -> Index:
    """Read a list of paths, one a line, relative to the list's folder, in the order of the file; skip blank lines.

    Raises:
        UserError: the file is not a text file, or lists no picture.
    """
    text = place.read_bytes()
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what PowerShell's > writes
        text = text.decode("utf-16", "replace").encode()
    if b"\0" in text:
        raise UserError(f"dataset.path: {place} is neither a folder nor a text file with one path a line.")
    text = text.removeprefix(codecs.BOM_UTF8)
    lines = [line for line in (line.rstrip(b"\r") for line in text.split(b"\n")) if line.strip()]
    if not lines:
        raise UserError(f"dataset.path: {place} names no picture. Write one path a line into it.")
    root = os.fsencode(place.parent.absolute())
    parents = [os.path.basename(os.path.dirname(line) or root) for line in lines]  # noqa: PTH119, PTH120
    lengths = np.fromiter(map(len, lines), np.int64, len(lines))
    return Index(root, np.frombuffer(b"".join(lines), np.uint8), _offsets(lengths), _labels(_numbered(parents)))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _numbered(names: Iterable[bytes]) -> np.ndarray:
    """Return the rank of each name among the sorted different names."""
    names = list(names)
    rank = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([rank[name] for name in names], np.int32)


def _labels(numbers: np.ndarray) -> Tensor | None:
    return torch.from_numpy(numbers.astype(np.int64)) if numbers.max() > 0 else None
