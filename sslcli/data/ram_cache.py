"""A cache of decoded samples in memory, so that nothing is decoded again after the first epoch."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import CorruptSamples, Dataset, Wrapper
from sslcli.types import Field, Spec


class RamCache(Wrapper):
    """A dataset whose columns are cached, as the bytes that they are, when a sample is first fetched by any worker.

    The memory is shared with workers that are forked from this process, and allocated page by page as samples are
    added. Workers that are not forked do not use the cache.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.keeps = True
        self.held_out = None if dataset.held_out is None else RamCache(dataset.held_out)
        self._kept: dict[str, np.ndarray] | None = {
            name: shared_bytes(len(dataset), field.num_bytes) for name, field in dataset.spec.items()
        }
        self._filled = shared_bytes(len(dataset), 1)[:, 0]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None, "_filled": None}

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        if self._kept is None:
            return self.dataset.fetch(index)
        rows = index.numpy()
        missing = np.flatnonzero(self._filled[rows] == 0)
        if len(missing):
            try:
                fresh = self.dataset.fetch(index[torch.from_numpy(missing)])
            except CorruptSamples as error:
                raise CorruptSamples({int(missing[row]): bad for row, bad in error.rows.items()}) from None
            for name, column in fresh.items():
                self._kept[name][rows[missing]] = _as_bytes(column)
            self._filled[rows[missing]] = 1  # set after the pixels, because other workers may read them from now on
        return {name: _from_bytes(kept[rows], self.spec[name]) for name, kept in self._kept.items()}


def shared_bytes(count: int, size: int) -> np.ndarray:
    """Allocate zeros (count, size) uint8 that forked processes share; not in /dev/shm, often small in containers."""
    return np.frombuffer(mmap.mmap(-1, max(1, count * size)), np.uint8, count * size).reshape(count, size)


def _as_bytes(column: Tensor) -> np.ndarray:
    """Return the bytes (B, n) of a column (B, ...); NumPy does not have all dtypes of torch."""
    flat = column.contiguous().reshape(len(column), -1)
    return flat.view(torch.uint8).numpy()


def _from_bytes(rows: np.ndarray, field: Field) -> Tensor:
    """Return the column (B, *shape) whose bytes are ``rows`` (B, n)."""
    return torch.from_numpy(rows).view(field.dtype).reshape(len(rows), *field.shape)


def num_bytes(spec: Spec, count: int) -> int:
    """Return the number of bytes of ``count`` samples."""
    return count * sum(field.num_bytes for field in spec.values())


def free_memory() -> int:
    """Return the bytes that this process may still allocate: the smaller of the kernel's and the cgroup's number.

    8 GiB if neither is known.
    """
    kernel = _number("/proc/meminfo", lambda text: 1024 * int(text.split("MemAvailable:")[1].split()[0]))
    group = _number("/sys/fs/cgroup/memory.max", int)
    return min(kernel or group or 8 * 2**30, group or kernel or 8 * 2**30)


def _number(path: str, read: Callable[[str], int]) -> int | None:
    try:
        return read(Path(path).read_text())
    except (OSError, ValueError, IndexError):  # another system, or no limit
        return None
