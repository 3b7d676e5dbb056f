"""Processes that read ahead: how many, and how they are started."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from sslcli.data.base import Dataset
from sslcli.signals import ignore_in_worker


def by_workers(
    items: TorchDataset[Any], order: Iterable[Any] | None, workers: int, *, pin: bool = False
) -> Iterator[Any]:
    """``items[key]`` for each key of ``order`` (null: 0, 1, ... to its length), in order, read ahead by ``workers``."""
    with warnings.catch_warnings():  # of more workers than CPUs: the user has asked for them
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader: DataLoader[Any] = DataLoader(
            items,
            sampler=order,
            batch_size=None,
            num_workers=workers,
            pin_memory=pin,
            prefetch_factor=4,
            worker_init_fn=ignore_in_worker,
        )
        stream = iter(loader)
    if isinstance(stream, _MultiProcessingDataLoaderIter):
        # They ignore SIGTERM, with which an interpreter that exits in the middle of a stream would end them.
        weakref.finalize(stream, _kill, stream._workers)
    return stream


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def default_workers(dataset: Dataset) -> int:
    """0 for samples in memory, whose fetch is an index; else one per CPU that the loop does not need.

    The CPUs are those that this process may run on, not those of the machine, shared with the other
    processes of the run on it.
    """
    if dataset.in_memory:
        return 0
    return min(16, max(1, available_cpus() - 1))


def available_cpus() -> int:
    """CPUs for each process of the run on this machine."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
