"""Folders of a split, such as train and val, right below the folder that the user gave."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sslcli.data.pictures.found import Found, printable
from sslcli.data.split_names import TEST, TRAIN, VALIDATION, named_split
from sslcli.errors import UserError
from sslcli.run_dir.formatting import listed

_PARTS = (TRAIN, TEST, VALIDATION)
_NAMED = 5  # folders that are named in a line


@dataclass(frozen=True)
class Split:
    """The parts that N pictures belong to.

    Args:
        part: (N,) int64, the position of each picture's part in ``folders``.
        folders: the names of the folders of the training part, of the test part and of the validation part; "" where
            there is no such folder.
        others: what else was found and is left out, in words.
    """

    part: np.ndarray
    folders: tuple[str, str, str]
    others: tuple[str, ...]

    def index(self, part: int) -> Tensor:
        """Return the positions (M,) of the pictures of a part."""
        return torch.from_numpy(np.flatnonzero(self.part == part))

    def held_out(self, labels: Tensor | None) -> int | None:
        """Return the part that probes query: test, or validation if test has no class of the training part.

        None if neither has one, such as pictures of a competition whose classes are secret.
        """
        there = [part for part in (1, 2) if self.folders[part]]
        if labels is None:
            return there[0]
        known = labels[self.index(0)].unique()
        known = known[known >= 0]
        if not len(known):
            return there[0]
        return next((part for part in there if torch.isin(labels[self.index(part)], known).any()), None)

    def in_words(self, held_out: int | None, *, asked: bool) -> str:
        """Return which folders are read and which are not, for the start lines.

        Args:
            held_out: the part that probes query; None if neither is.
            asked: whether the parts were asked for their classes.
        """
        unread = [self.folders[part] for part in (1, 2) if self.folders[part] and part != held_out]
        if asked and held_out != 1:
            unread = [f"{name} (no class that {self.folders[0]} has)" for name in unread]
        read = f"{self.folders[0]} trains" + ("" if held_out is None else f", {self.folders[held_out]} is held out")
        unread += self.others
        left = f"; not read: {listed(unread, _NAMED)}" if unread else ""
        return f"{read}{left} (dataset.split_folders=false reads all as one)"


def divided(found: Found) -> tuple[Found, Split] | None:
    """Return the pictures in folders of a split, as they are found below each; None where all are one.

    They are divided where a topmost folder with pictures is named train, and one test or validation. A picture that is
    directly in such a folder has no class (-1). All names of one file are on the side of the first.

    Raises:
        UserError: two folders are named after one part, such as val and valid.
    """
    _, at, top = np.unique(found.tops, return_index=True, return_inverse=True)
    names = [printable(found.paths.relative(i).split(b"/")[0]) for i in at.tolist()]
    is_folder = [b"/" in found.paths.relative(i) for i in at.tolist()]
    parts = [named_split(name) if inside else None for name, inside in zip(names, is_folder)]
    if TRAIN not in parts or not {TEST, VALIDATION}.intersection(parts):
        return None
    for part in _PARTS:
        of_part = [name for name, other in zip(names, parts) if other == part]
        if len(of_part) > 1:
            raise UserError(
                f"dataset.path: it holds the folders {' and '.join(of_part)}, both for {part}. Rename one, or read all "
                "as one with dataset.split_folders=false."
            )
    numbers = np.array([_PARTS.index(part) if part else -1 for part in parts])[top]
    kept = numbers >= 0
    inner = _inner(found, kept)
    folders = [next((name for name, other in zip(names, parts) if other == part), "") for part in _PARTS]
    counts = np.bincount(top).tolist()
    others = [
        f"{count:,} picture{'s' * (count > 1)} {f'in {name}' if inside else 'beside them'}"
        for name, inside, part, count in zip(names, is_folder, parts, counts)
        if not part
    ]
    return inner, Split(numbers[kept][inner.first], (folders[0], folders[1], folders[2]), tuple(others))


def _inner(found: Found, kept: np.ndarray) -> Found:
    """Return the pictures that are ``kept`` (N,), with the folders below the topmost ones in the place of these."""
    paths = found.paths.chosen(kept)
    _, at, first = np.unique(found.first[kept], return_index=True, return_inverse=True)
    number: dict[bytes, int] = {}  # of each folder: there are few, and maybe a million pictures
    folders = (paths.relative(i).rpartition(b"/")[0] for i in range(len(paths)))
    of = np.fromiter((number.setdefault(folder, len(number)) for folder in folders), np.int64, len(paths))
    below = [folder.split(b"/")[1:] for folder in number]
    tops, parents = (_ranks([names[place] if names else None for names in below])[of] for place in (0, -1))
    return replace(found, paths=paths, parents=parents, tops=tops, first=at[first], depth=1)


def _ranks(names: list[bytes | None]) -> np.ndarray:
    """Return the rank of each name among the sorted different names, (N,) int32; -1 for None."""
    rank = {name: i for i, name in enumerate(sorted({name for name in names if name is not None}))}
    return np.array([-1 if name is None else rank[name] for name in names], np.int32)
