"""Caches the result of a scan until a folder changes, because listing a million files again takes long."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from sslcli.data import disk_cache as cache
from sslcli.data.pictures.folders import UNREADABLE, sum_of

_LAYOUT = b"pictures 5"  # version of the cached arrays


@dataclass(frozen=True)
class Snapshot:
    """The pictures below a folder, and the state of its sub-folders, by which changes are detected."""

    blob: np.ndarray  # (bytes,) uint8, the concatenated paths
    offsets: np.ndarray  # (N + 1,) int64
    labels: np.ndarray  # (N,) int32, ranks of the names of the parent folders
    tops: np.ndarray  # (N,) int32, ranks of the names of the topmost folders
    first: np.ndarray  # (N,) int32, the number of the first name of the same file
    tally: np.ndarray  # (bytes,) uint8, what was left out
    names: np.ndarray  # (bytes,) uint8, the paths of all listed folders, joined by NUL
    mtimes: np.ndarray  # (folders,) int64, in nanoseconds
    entries: np.ndarray  # (folders,) int64, number of entries of each folder
    sums: np.ndarray  # (folders,) int64, ``sum_of`` the names of these entries

    @property
    def folders(self) -> list[bytes]:
        """The paths of the folders, relative to the root."""
        return self.names.tobytes().split(b"\0")


def load(root: bytes, extensions: frozenset[bytes]) -> Snapshot | None:
    """Load the snapshot of a folder; None if there is none, or it is out of date or damaged."""
    arrays = cache.load(_name(root, extensions))
    if arrays is None:
        return None
    snapshot = Snapshot(**arrays)
    return snapshot if _is_consistent(snapshot) and _is_up_to_date(root, snapshot) else None


def save(root: bytes, extensions: frozenset[bytes], snapshot: Snapshot) -> None:
    """Save the snapshot of a folder for the next start, if the cache folder can be written."""
    cache.save(_name(root, extensions), vars(snapshot))


def _name(root: bytes, extensions: frozenset[bytes]) -> bytes:
    return b"\0".join([_LAYOUT, root, *sorted(extensions)])


def _is_consistent(snapshot: Snapshot) -> bool:
    """Whether the sizes and offsets of the arrays fit together, so that paths are read correctly."""
    offsets, count = snapshot.offsets, len(snapshot.folders)
    return (
        len(offsets) == len(snapshot.labels) + 1 == len(snapshot.tops) + 1 == len(snapshot.first) + 1
        and bool((snapshot.first <= np.arange(len(snapshot.first))).all())
        and offsets[0] == 0
        and offsets[-1] == len(snapshot.blob)
        and bool((np.diff(offsets) > 0).all())
        and len(snapshot.mtimes) == len(snapshot.entries) == len(snapshot.sums) == count
    )


def _is_up_to_date(root: bytes, snapshot: Snapshot) -> bool:
    """Whether every folder has the same modification time and the same names in it as in the snapshot.

    The time alone is not enough, because rsync and tar reset a folder's time after adding files.
    """
    known = zip(snapshot.folders, snapshot.mtimes.tolist(), snapshot.entries.tolist(), snapshot.sums.tolist())
    for name, *before in known:
        path = os.path.join(root, name)  # noqa: PTH118
        try:
            names = os.listdir(path)  # noqa: PTH208
            now = [os.stat(path).st_mtime_ns, len(names), sum_of(names)]  # noqa: PTH116
        except OSError:
            now = [before[0], UNREADABLE, 0]
        if now != before:
            return False
    return True
