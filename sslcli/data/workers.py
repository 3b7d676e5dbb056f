"""Worker processes that read data ahead: starting them, and choosing their number."""

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
    """Yield ``items[key]`` for each key of ``order``, in order, read ahead by ``workers`` processes.

    If ``order`` is None, the keys are 0, 1, ... up to the length of ``items``.
    """
    with warnings.catch_warnings():  # torch warns of more workers than CPUs, but the user has chosen the number
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
        # Workers ignore SIGTERM, by which Python would end them on exit, so they are killed instead.
        weakref.finalize(stream, _kill, stream._workers)
    return stream


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()


def default_workers(dataset: Dataset) -> int:
    """Return 0 for a dataset in memory, else one worker for each available CPU but one, at least 1 and at most 16.

    One CPU is left for the training loop.
    """
    if dataset.in_memory:
        return 0
    return min(16, max(1, available_cpus() - 1))


def available_cpus() -> int:
    """Return the CPUs that this process may use, divided by the number of the run's processes on this machine."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
