"""From a step's number to its batch: an order without state, so that resuming needs only the number."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from sslcli.datasets.base import Columns, Dataset
from sslcli.engine.signals import ignore_in_worker
from sslcli.errors import UserError
from sslcli.randomness import fold
from sslcli.ranks import Ranks

Batch = dict[str, Tensor]


class Loader:
    """The batches of a run, in micro-batches.

    An epoch is a permutation from (seed, epoch); its tail, smaller than a batch, is left out.

    Args:
        dataset: what to draw from.
        batch_size: samples a step.
        accumulate: micro-batches a step; divides ``batch_size``.
        seed: of the order.
        workers: processes that fetch ahead; 0 fetches in this one.
        pin: whether to pin host memory for copies to a GPU.
        ranks: the processes of the run; each reads its own equal part of every batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        accumulate: int,
        seed: int,
        workers: int,
        pin: bool,
        ranks: Ranks | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.ranks = ranks or Ranks()
        self.steps_per_epoch = len(dataset) // batch_size
        self.wait = 0.0  # seconds that the loop has waited for data
        self._seed = seed
        self._workers = workers
        self._pin = pin
        self._epoch = -1
        self._order = torch.empty(0)

    def positions(self, micro: int) -> np.ndarray:
        """The positions of this process's micro-batch ``micro`` in the global batch."""
        size = self.batch_size // (self.ranks.size * self.accumulate)
        start = (self.ranks.rank * self.accumulate + micro) * size
        return np.arange(start, start + size)

    def index(self, step: int) -> Tensor:
        """The samples (batch_size,) of a step."""
        epoch, k = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(fold(self._seed, "order", epoch) % 2**63)
            self._order = torch.randperm(len(self.dataset), generator=generator)
            self._epoch = epoch
        return self._order[k * self.batch_size : (k + 1) * self.batch_size]

    def batches(self, step: int) -> Iterator[list[Batch]]:
        """The micro-batches of ``step``, then of the steps after it, without end; keeps count of the wait."""
        fetched = iter(self._fetched(step))
        try:
            while True:
                start = time.perf_counter()
                batch = [self._checked(next(fetched)) for _ in range(self.accumulate)]
                self.wait += time.perf_counter() - start
                yield batch
        finally:
            del fetched  # ends the workers now: an error's traceback would keep them, and they ignore SIGTERM

    def _checked(self, batch: Batch | UserError) -> Batch:
        if isinstance(batch, UserError):
            raise batch if self.ranks.first else UserError(f"rank {self.ranks.rank}: {batch}")
        return batch

    def _fetched(self, step: int) -> Iterator[Batch | UserError]:
        order = _MicroBatches(self, step)
        if not self._workers:
            return (_fetch(self.dataset, index, self._pin) for index in order)
        return iter(
            DataLoader(
                _ByIndex(self.dataset),
                sampler=order,
                batch_size=None,
                num_workers=self._workers,
                pin_memory=self._pin,
                prefetch_factor=4,
                worker_init_fn=ignore_in_worker,
            )
        )


class _MicroBatches(Sampler[Tensor]):
    """The indices of each micro-batch from a step on, without end."""

    def __init__(self, loader: Loader, step: int) -> None:
        self.loader, self.step = loader, step

    def __iter__(self) -> Iterator[Tensor]:
        step = self.step
        while True:
            index = self.loader.index(step)
            for micro in range(self.loader.accumulate):
                yield index[self.loader.positions(micro)]
            step += 1


class _ByIndex(TorchDataset):
    """Adapts a dataset to torch's workers."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: Tensor) -> Batch | UserError:
        return _fetch(self.dataset, index)


def _fetch(dataset: Dataset, index: Tensor, pin: bool = False) -> Batch | UserError:
    """A micro-batch, or what went wrong as a value: a worker would wrap an exception in its traceback."""
    try:
        batch = dataset.fetch(index)
        return {name: column.pin_memory() for name, column in batch.items()} if pin else batch
    except UserError as error:
        return error


def default_workers(dataset: Dataset) -> int:
    """0 for columns in memory, whose fetch is an index; else one per CPU that the loop does not need."""
    inner = dataset
    while hasattr(inner, "dataset"):
        inner = inner.dataset
    return 0 if isinstance(inner, Columns) else min(16, max(1, torch.get_num_threads() - 1))
