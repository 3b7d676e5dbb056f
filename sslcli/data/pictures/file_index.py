"""The pictures below a folder or in a list, with their labels; one name for each file."""

from __future__ import annotations

import os
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import Notes
from sslcli.data.fingerprints import LIMIT, of_many
from sslcli.data.pictures.file_lists import read_list
from sslcli.data.pictures.first_bytes import EXTENSIONS
from sslcli.data.pictures.folders import UNREADABLE, Folder, Tally, in_order, scan
from sslcli.data.pictures.found import Found, in_words, packed, printable, tally_notes, unpacked
from sslcli.data.pictures.index_cache import Snapshot, load, save
from sslcli.data.pictures.paths import Paths, offsets_of, ranks_of
from sslcli.data.pictures.same_files import first_names
from sslcli.data.pictures.split_folders import Split, divided
from sslcli.errors import UserError

By = Literal["parent", "top", "none"]  # the folder whose name is a picture's label
Links = Literal["one", "keep"]  # which of the names of one file are samples


@dataclass(frozen=True)
class Index:
    """The paths of N pictures and their labels.

    Args:
        paths: the paths.
        labels: (N,) int64, ranks of the names of folders in sorted order, -1 for no class; None if there is only one
            name.
        classes: the names of the folders by label, as they are printed; () if there are no labels.
        first: (N,) int64, the number of the first name of the same file, where several names of a file are kept.
        notes: what was found and left out, for the start lines.
        split: the parts of the pictures, where folders of a split are kept apart.
    """

    paths: Paths
    labels: Tensor | None
    classes: tuple[str, ...] = ()
    first: Tensor | None = None
    notes: Notes = ()
    split: Split | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def source(self, i: int) -> str:
        """Return the i-th path, for opening the file."""
        return self.paths.source(i)

    def where(self, i: int) -> str:
        """Return the i-th path, for printing: special bytes are escaped, so that it is one line."""
        return printable(os.fsencode(self.source(i)))

    def fingerprint(self, limit: int = LIMIT) -> str:
        """Return a text that changes with the name and with the content of any picture; see ``of_many``."""
        names = self.paths.offsets.tobytes() + self.paths.blob.tobytes()
        return f"{len(self)} pictures, {of_many(len(self), self.source, names, limit)}"

    def old_fingerprint(self) -> str:
        """Return the text of old checkpoints, which changes with the name of any picture only."""
        names = zlib.crc32(self.paths.offsets.tobytes(), zlib.crc32(self.paths.blob.tobytes()))
        return f"{len(self)} pictures, names {names:08x}"


def index(
    path: str, label: By | None = None, links: Links = "one", *, arrays: bool = False, apart: bool = False
) -> Index:
    """Index the pictures below a folder, or those that a text file lists.

    Args:
        path: the folder or the text file.
        label: whose name is the label: the parent folder, the topmost folder, or none. None is the parent, but the
            topmost folder if all parents have the same name, as in CLASS/images/0001.png.
        links: ``one`` takes the first name of each file, ``keep`` all of them.
        arrays: whether NumPy's .npy files are pictures, too.
        apart: whether folders of a split are kept apart, as train and val, and labels are those below them.

    Raises:
        UserError: the folder or file does not exist, cannot be read, or has no pictures.
    """
    place = Path(path).expanduser()
    try:
        if place.is_file():
            return _indexed(read_list(place), label, links)
        if not place.is_dir():
            raise UserError(f"dataset.path: there is no folder {place}.")
        os.scandir(place).close()
    except PermissionError:
        raise UserError(f"dataset.path: {place} cannot be read: permission denied.") from None
    extensions = EXTENSIONS | {b".npy"} if arrays else EXTENSIONS
    found = _in_folder(place, extensions)
    inner, split = (divided(found) if apart else None) or (found, None)
    return _indexed(inner, label, links, split)


def _in_folder(place: Path, extensions: frozenset[bytes]) -> Found:
    root = os.fsencode(place.absolute())
    snapshot = load(root, extensions)
    if snapshot is None:
        snapshot = _snapshot(root, *scan(root, extensions))
        save(root, extensions, snapshot)
    unread = [name for name, entries in zip(snapshot.folders, snapshot.entries) if entries == UNREADABLE]
    if unread:
        first = printable(os.path.join(root, unread[0]))  # noqa: PTH118
        more = f" and {len(unread) - 1} more folders" if len(unread) > 1 else ""
        print(f"warning: dataset.path: {first}{more} cannot be read and will be left out.", file=sys.stderr)
    tally = unpacked(snapshot.tally)
    if not len(snapshot.labels):
        others = in_words(tally.left_out) if tally.left_out else "it is empty"
        raise UserError(f"dataset.path: {place} holds no picture: {others}.")
    paths = Paths(root, snapshot.blob, snapshot.offsets)
    return Found(paths, snapshot.labels, snapshot.tops, snapshot.first, tally=tally)


def _snapshot(root: bytes, folders: dict[bytes, Folder], tally: Tally) -> Snapshot:
    blob, lengths, counts, parents, tops = bytearray(), [np.zeros(0, np.int64)], [], [], []
    places = [np.zeros((0, 2), np.uint64)]
    for folder, names, where in in_order(folders):
        inside = os.path.join(folder, b"")  # noqa: PTH118
        paths = [inside + name for name in names]
        blob += b"".join(paths)
        lengths.append(np.fromiter(map(len, paths), np.int64, len(paths)))
        counts.append(len(paths))
        parents.append(os.path.basename(folder or root))  # noqa: PTH119
        tops.append(folder.split(b"/")[0] or os.path.basename(root))  # noqa: PTH119
        places.append(where)
    found = Paths(root, np.frombuffer(bytes(blob), np.uint8), offsets_of(np.concatenate(lengths)))
    return Snapshot(
        blob=found.blob,
        offsets=found.offsets,
        labels=np.repeat(ranks_of(parents), counts),
        tops=np.repeat(ranks_of(tops), counts),
        first=first_names(np.concatenate(places), found.source),
        tally=packed(tally),
        names=np.frombuffer(b"\0".join(folders), np.uint8),
        mtimes=np.array([folder.mtime_ns for folder in folders.values()], np.int64),
        entries=np.array([folder.entries for folder in folders.values()], np.int64),
        sums=np.array([folder.names for folder in folders.values()], np.int64),
    )


def _indexed(found: Found, label: By | None, links: Links, split: Split | None = None) -> Index:
    """Choose the names and the labels of the pictures."""
    by = label or ("top" if found.parents.max() == 0 and found.tops.max() > 0 else "parent")
    ranks = {"parent": found.parents, "top": found.tops, "none": np.zeros_like(found.parents)}[by]
    keep = found.first == np.arange(len(found.first)) if links == "one" else np.ones(len(found.first), bool)
    paths = found.paths if keep.all() else found.paths.chosen(keep)
    different, at, numbers = np.unique(ranks[keep], return_index=True, return_inverse=True)
    without = int(different[0] < 0)  # one of them is no class
    labels = torch.from_numpy(numbers.astype(np.int64) - without) if len(different) - without > 1 else None
    classes = () if labels is None else tuple(printable(_class(found, paths, by, i)) for i in at[without:].tolist())
    notes = (*tally_notes(found.tally), *_link_notes(found, ranks, links), *_label_notes(found, label, by, classes))
    first = torch.from_numpy(found.first.astype(np.int64)) if links == "keep" else None
    split = split if split is None else replace(split, part=split.part[keep])
    return Index(paths, labels, classes, first, notes, split)


def _class(found: Found, paths: Paths, by: By, i: int) -> bytes:
    """Return the name of the class of the i-th path."""
    if by == "parent":
        return paths.parent(i)
    path = paths.relative(i)
    path = os.path.normpath(os.path.join(paths.root, path))[len(found.above) :] if found.above else path  # noqa: PTH118
    return path.split(b"/")[found.depth] if b"/" in path else os.path.basename(found.above.rstrip(b"/") or paths.root)  # noqa: PTH119


def _link_notes(found: Found, ranks: np.ndarray, links: Links) -> Notes:
    again = found.first != np.arange(len(found.first))
    if not again.any():
        return ()
    count, across = int(again.sum()), int((ranks != ranks[found.first]).sum())
    done = "left out (dataset.links=keep keeps them)" if links == "one" else "kept, on one side of the held-out split"
    text = f"{count:,} more name{'s' * (count > 1)} of files that were found already, {done}"
    return (("links", text + (f"; {across:,} of them lie in another class than the first name" if across else "")),)


def _label_notes(found: Found, label: By | None, by: By, classes: tuple[str, ...]) -> Notes:
    """Return how labels were chosen where a user may expect others."""
    if label is None and by == "top":
        text = f"the topmost folders, as all parent folders are called {printable(found.paths.parent(0))}"
        return (("labels", f"{text} (dataset.label=none for none)"),)
    tops, parents = found.tops[found.parents >= 0].astype(np.int64), found.parents[found.parents >= 0]
    crossed = len(np.unique(tops * (found.parents.max() + 1) + parents))
    if label is None and found.tops.max() > 0 and crossed > found.parents.max() + 1:
        text = "the parent folders; those of one name are one class (dataset.label=top takes the topmost folders)"
        return (("labels", text),)
    return ()
