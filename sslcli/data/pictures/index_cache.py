"""Remembers what a scan found, for as long as no folder changes: listing a million files again takes its time."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from sslcli.data import disk_cache as cache
from sslcli.data.pictures.folders import UNREADABLE

_LAYOUT = b"pictures 2"  # of what is remembered


@dataclass(frozen=True)
class Snapshot:
    """The pictures below a folder, and what would be different if they were."""

    blob: np.ndarray  # (bytes,) uint8, the paths one after the other
    offsets: np.ndarray  # (N + 1,) int64
    labels: np.ndarray  # (N,) int32
    names: np.ndarray  # (bytes,) uint8, every folder that was listed, with NUL between
    mtimes: np.ndarray  # (folders,) int64, in nanoseconds
    entries: np.ndarray  # (folders,) int64, how many names each holds

    @property
    def folders(self) -> list[bytes]:
        """The paths of the folders from the root."""
        return self.names.tobytes().split(b"\0")


def load(root: bytes, extensions: frozenset[bytes]) -> Snapshot | None:
    """What was saved for this folder; nothing if it is stale, damaged or not there."""
    arrays = cache.load(_name(root, extensions))
    if arrays is None:
        return None
    snapshot = Snapshot(**arrays)
    return snapshot if _whole(snapshot) and _fresh(root, snapshot) else None


def save(root: bytes, extensions: frozenset[bytes], snapshot: Snapshot) -> None:
    """Keep it for the next start, if there is a place for it."""
    cache.save(_name(root, extensions), vars(snapshot))


def _name(root: bytes, extensions: frozenset[bytes]) -> bytes:
    return b"\0".join([_LAYOUT, root, *sorted(extensions)])


def _whole(snapshot: Snapshot) -> bool:
    """Whether the arrays belong together, so that no path can be cut out of the wrong place."""
    offsets, count = snapshot.offsets, len(snapshot.folders)
    return (
        len(offsets) == len(snapshot.labels) + 1
        and offsets[0] == 0
        and offsets[-1] == len(snapshot.blob)
        and bool((np.diff(offsets) > 0).all())
        and len(snapshot.mtimes) == len(snapshot.entries) == count
    )


def _fresh(root: bytes, snapshot: Snapshot) -> bool:
    """Whether every folder was last changed when it was then, and holds as many names.

    Both: rsync and tar set a folder's time back after they have put files into it.
    """
    for name, mtime, entries in zip(snapshot.folders, snapshot.mtimes.tolist(), snapshot.entries.tolist()):
        path = os.path.join(root, name)  # noqa: PTH118
        try:
            now, held = os.stat(path).st_mtime_ns, len(os.listdir(path))  # noqa: PTH116, PTH208
        except OSError:
            now, held = mtime, UNREADABLE
        if (now, held) != (mtime, entries):
            return False
    return True
