"""Finds the names of one file: symbolic and hard links, which are told by their device and inode."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from sslcli.data.many_files import of_each

_MISSING = (0, 0)  # device and inode of a file that is not there


def first_names(places: np.ndarray, path: Callable[[int], str]) -> np.ndarray:
    """Return for each of N names the number of the first name of the same file, (N,) int32; its own if it has no other.

    Args:
        places: (N, 2) uint64, device and inode of each name, as listing a folder gave them.
        path: returns the path of the i-th name.
    """
    first = np.arange(len(places), dtype=np.int32)
    _, inverse, counts = np.unique(places[:, 1], return_inverse=True, return_counts=True)
    seen: dict[tuple[int, int], int] = {}
    for i in np.flatnonzero(counts[inverse] > 1).tolist():
        # Some file systems make inodes up for listings, so the file itself is asked.
        place = _place(path(i))
        if place != _MISSING:
            first[i] = seen.setdefault(place, i)
    return first


def places_of(count: int, path: Callable[[int], str]) -> np.ndarray:
    """Return device and inode of ``count`` files, (N, 2) uint64; of a file that is not there, numbers of its own."""
    found = [place for chunk in of_each(_place, count, path) for place in chunk]
    places = np.array(found, np.uint64).reshape(-1, 2)
    missing = np.flatnonzero(places[:, 1] == 0)
    places[missing, 1] = np.uint64(2**63) + missing.astype(np.uint64)
    return places


def _place(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return _MISSING
    return status.st_dev, status.st_ino
