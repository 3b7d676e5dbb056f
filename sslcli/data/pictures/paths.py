"""A million paths in two arrays; every worker would copy a list of a million Python strings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Paths:
    """The paths of N pictures, concatenated in one array.

    Args:
        root: the folder that paths are relative to.
        blob: (bytes,) uint8, the concatenated paths as the file system gives them; they need not be UTF-8.
        offsets: (N + 1,) int64, where each path begins.
    """

    root: bytes
    blob: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, root: bytes, paths: Sequence[bytes]) -> Paths:
        """Concatenate some paths."""
        lengths = np.fromiter(map(len, paths), np.int64, len(paths))
        return cls(root, np.frombuffer(b"".join(paths), np.uint8), offsets_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def relative(self, i: int) -> bytes:
        """Return the i-th path as it was found or listed."""
        return self.blob[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def source(self, i: int) -> str:
        """Return the i-th path, for opening the file."""
        return os.fsdecode(os.path.join(self.root, self.relative(i)))  # noqa: PTH118

    def parent(self, i: int) -> bytes:
        """Return the name of the folder that holds the i-th picture."""
        return os.path.basename(os.path.dirname(self.relative(i)) or self.root)  # noqa: PTH119, PTH120

    def chosen(self, keep: np.ndarray) -> Paths:
        """Return the paths where ``keep`` (N,) is True."""
        lengths = np.diff(self.offsets)
        return Paths(self.root, self.blob[np.repeat(keep, lengths)], offsets_of(lengths[keep]))


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Return where each of some texts begins, and where the last ends, from their lengths."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def ranks_of(names: Iterable[bytes]) -> np.ndarray:
    """Return the rank of each name among the sorted different names, (N,) int32."""
    names = list(names)
    rank = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([rank[name] for name in names], np.int32)
