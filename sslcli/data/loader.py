"""The loader: the batch is a function of the number of the step, so resuming needs only this number."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from sslcli.data.base import CorruptSample, Dataset
from sslcli.data.buckets import bucketed, check_buckets, lengths_of
from sslcli.data.corrupt import CorruptReplaced
from sslcli.data.prefetch import Batch, on_device
from sslcli.data.ram_cache import num_bytes
from sslcli.data.sampler import permuted
from sslcli.data.shared_memory import ReadAhead
from sslcli.data.widths import trimmed
from sslcli.data.workers import by_workers
from sslcli.distributed.ranks import Ranks
from sslcli.errors import UserError
from sslcli.randomness import Randomness
from sslcli.types import Crops

MakeCrops = Callable[[Randomness], Crops | None]
_ORDER_BLOCK = 16384  # number of samples whose order is computed at a time


class Loader:
    """Loads the batches of a run, split into micro-batches.

    The order in an epoch is a permutation that depends on (seed, epoch). An incomplete last batch is dropped.

    Args:
        dataset: the training samples.
        batch_size: samples a step, over all processes.
        accumulate: micro-batches a step; divides ``batch_size``.
        seed: the seed of the order and of crops.
        workers: number of processes that read ahead; 0 reads in this process.
        device: the device on which batches are returned; for a GPU they are copied ahead from pinned memory.
        crops: makes the random crops of the views, for a dataset that cuts them from its full images.
        on_bad: called with the corrupt samples of each batch, which are replaced.
        advice: what the user can do if the model waits for data.
        ranks: the processes of the run; each of them reads an equal part of every batch.
        buckets: batches of a window in which samples are sorted by length (see ``buckets``); None sorts nothing.

    Raises:
        UserError: there is nothing to sort by.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        accumulate: int,
        seed: int,
        workers: int,
        device: torch.device | None = None,
        crops: MakeCrops | None = None,
        on_bad: Callable[[Iterable[CorruptSample]], None] = lambda found: None,
        advice: str = "",
        ranks: Ranks | None = None,
        buckets: int | None = None,
    ) -> None:
        if buckets is not None:
            check_buckets(dataset.spec)
        self.buckets = buckets
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.ranks = ranks or Ranks()
        self.steps_per_epoch = len(dataset) // batch_size
        self.ahead = ReadAhead(workers)
        self.advice = advice
        self.wait = 0.0  # seconds that the training loop has waited for data
        self.dataset = dataset
        self._fetch = _Fetch(dataset if isinstance(dataset, CorruptReplaced) else CorruptReplaced(dataset), crops, seed)
        self._num_samples = len(dataset)
        self._seed = seed
        self._device = device or torch.device("cpu")
        self._pin = self._device.type == "cuda"
        self._on_bad = on_bad
        self._block = (-1, -1)  # epoch and number of the block of steps that ``_order`` is for
        self._order = torch.empty(0)

    def positions(self, micro: int) -> np.ndarray:
        """Return the positions in the global batch of the samples of this process's micro-batch ``micro``."""
        size = self.batch_size // (self.ranks.size * self.accumulate)
        start = (self.ranks.rank * self.accumulate + micro) * size
        return np.arange(start, start + size)

    def index(self, step: int) -> Tensor:
        """Return the indices (batch_size,) of the samples of a step."""
        epoch, k = divmod(step, self.steps_per_epoch)
        steps = self.buckets or max(1, _ORDER_BLOCK // self.batch_size)
        if self._block != (epoch, k // steps):
            self._block = (epoch, k // steps)
            start = k // steps * steps * self.batch_size
            stop = min(start + steps * self.batch_size, self.steps_per_epoch * self.batch_size)
            order = permuted(np.arange(start, stop), self._num_samples, self._seed, "order", epoch)
            self._order = torch.from_numpy(order)
            if self.buckets:
                length = lengths_of(self._fetch.dataset, self._order)
                key = (self._seed, "buckets", epoch, k // steps)
                self._order = bucketed(self._order, length, self.batch_size, *key)
        first = k % steps * self.batch_size
        return self._order[first : first + self.batch_size]

    def item_bytes(self) -> int:
        """Return the bytes of one micro-batch as a worker sends it."""
        return len(self.positions(0)) * self._fetch.sample_bytes()

    def batches(self, step: int) -> Iterator[list[Batch]]:
        """Yield the micro-batches of ``step`` and of all later steps, on the device, without end.

        Raises:
            UserError: the dataset cannot be read, or too many of its samples are corrupt.
        """
        return on_device(self._batches(step), self._device)

    def _batches(self, step: int) -> Iterator[list[Batch]]:
        fetched = iter(self._fetched(step))
        try:
            while True:
                start = time.perf_counter()
                batch = [self._checked(next(fetched)) for _ in range(self.accumulate)]
                self.wait += time.perf_counter() - start
                yield batch
        finally:
            del fetched  # ends the workers now, which ignore SIGTERM; a traceback would keep them alive

    def _checked(self, fetched: tuple[Batch, list[CorruptSample]] | UserError) -> Batch:
        try:
            if isinstance(fetched, UserError):
                raise fetched
            self._on_bad(fetched[1])
            return fetched[0]
        except UserError as error:
            raise error if self.ranks.first else UserError(f"rank {self.ranks.rank}: {error}") from None

    def _fetched(self, step: int) -> Iterator[tuple[Batch, list[CorruptSample]] | UserError]:
        order = _MicroBatches(self, step)
        if not self.ahead.workers:
            return (_pinned(self._fetch[where]) if self._pin else self._fetch[where] for where in order)
        return by_workers(self._fetch, order, self.ahead, pin=self._pin)


Where = tuple[int, np.ndarray, np.ndarray]  # step, positions in the global batch, indices of the samples


class _MicroBatches(Sampler[Where]):
    """Yields step, positions and indices of each micro-batch, starting at a step, without end."""

    def __init__(self, loader: Loader, step: int) -> None:
        self.loader, self.step = loader, step

    def __iter__(self) -> Iterator[Where]:
        step = self.step
        while True:
            index = self.loader.index(step)
            for micro in range(self.loader.accumulate):
                positions = self.loader.positions(micro)
                yield step, positions, index[positions].numpy()  # a tensor would take a descriptor to send
            step += 1


class _Fetch(TorchDataset):
    """Reads micro-batches, in this process or in a worker, as wide as their longest texts need.

    A UserError is returned, since workers add a traceback.
    """

    def __init__(self, dataset: CorruptReplaced, crops: MakeCrops | None, seed: int) -> None:
        self.dataset, self.crops, self.seed = dataset, crops, seed

    def __getitem__(self, where: Where) -> tuple[Batch, list[CorruptSample]] | UserError:
        step, positions, numbers = where
        index = torch.from_numpy(numbers)
        try:
            crops = self._crops(step, positions)
            if crops is None:
                return trimmed(self.dataset.fetch(index), self.dataset.spec), self.dataset.last_corrupt
            return self.dataset.fetch_crops(index, crops), self.dataset.last_corrupt
        except UserError as error:
            return error

    def sample_bytes(self) -> int:
        """Return the bytes of one sample as it is read."""
        crops = self._crops(0, np.zeros(1, np.int64))
        if crops is None:
            return num_bytes(self.dataset.spec, 1)
        images = [field for field in self.dataset.spec.values() if field.kind == "image"]
        of_pixel = sum(field.shape[0] * field.dtype.itemsize for field in images)
        return of_pixel * sum(height * width for height, width in crops.sizes)

    def _crops(self, step: int, positions: np.ndarray) -> Crops | None:
        if self.crops is None:
            return None
        crops = self.crops(Randomness(self.seed, step, positions, torch.device("cpu")))
        if crops is None:
            raise UserError("dataset.crop: these views make no crops to be cut by workers. Use dataset.crop=device.")
        return crops


def _pinned(fetched: tuple[Batch, list[CorruptSample]] | UserError) -> tuple[Batch, list[CorruptSample]] | UserError:
    if isinstance(fetched, UserError):
        return fetched
    batch, bad = fetched
    return {name: column if column.is_cuda else column.pin_memory() for name, column in batch.items()}, bad
