"""Sets up data loading for a run: caching in memory or on the GPU, the number of workers, and the loader."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from sslcli import signals
from sslcli.config.composed import TrainConfig
from sslcli.data.base import Columns, CorruptSample, Dataset
from sslcli.data.corrupt import CorruptReplaced
from sslcli.data.loader import Loader, MakeCrops
from sslcli.data.ram_cache import RamCache, free_memory, num_bytes
from sslcli.data.shared_memory import ReadAhead, that_fits
from sslcli.data.widths import trimmed
from sslcli.data.workers import by_workers, default_workers
from sslcli.distributed.ranks import Ranks
from sslcli.distributed.start import available_cpus
from sslcli.errors import UserError
from sslcli.randomness import to_device
from sslcli.run_dir.bad_samples import BadSampleList
from sslcli.run_dir.console import Console
from sslcli.types import Spec, lengths

T = TypeVar("T")

SHARE = 0.25  # maximum share of the free memory that ``dataset.cache=auto`` uses
_PIECE = 512  # samples that are read at a time when a whole dataset is read
_FEW_PIECES = 4  # below this number, starting workers takes longer than reading


def kept_in_memory(dataset: Dataset, cache: str) -> Dataset:
    """Wrap a dataset in a RAM cache if ``cache`` is ``memory``, or ``auto`` and its samples fit.

    ``auto`` uses at most a quarter of the free memory. Datasets that are in memory already are not changed.
    """
    num_samples = len(dataset) + (len(dataset.held_out) if dataset.held_out is not None else 0)
    fits = num_bytes(dataset.spec, num_samples) <= SHARE * free_memory()
    if dataset.in_memory or dataset.cuts_crops:
        return dataset
    return RamCache(dataset) if cache == "memory" or (cache == "auto" and fits) else dataset


def make_loader(
    config: TrainConfig,
    dataset: Dataset,
    *,
    crops: MakeCrops,
    device: torch.device,
    run_dir: Path,
    console: Console,
    ranks: Ranks,
) -> Loader:
    """Make the loader of a run.

    Args:
        config: the config of the run.
        dataset: the training split.
        crops: makes the random crops of a batch, for a dataset that cuts them from its full images itself.
        device: the device on which batches are returned.
        run_dir: the run directory, where corrupt samples are listed.
        console: prints a warning about the first corrupt sample.
        ranks: the processes of the run.

    Raises:
        UserError: sizes do not fit together, or keys contradict each other.
    """
    train, loading = config.train, config.dataset
    if train.batch_size % (train.num_micro * ranks.size):
        raise UserError(
            f"train.batch_size={train.batch_size} is not a multiple of {ranks.size} processes x "
            f"train.accumulate={train.accumulate}. Give a multiple of {ranks.size * train.num_micro}."
        )
    if train.batch_size > len(dataset):
        left_out = dict(dataset.notes).get("left out")
        raise UserError(
            f"train.batch_size={train.batch_size} is more than the {len(dataset)} training samples. "
            f"Give at most {len(dataset)}." + (f" Of dataset.path, {left_out}." if left_out else "")
        )
    if dataset.cuts_crops and loading.cache in ("memory", "device"):
        raise UserError(f"dataset.cache={loading.cache}: with dataset.crop=worker every crop is new. Use cache=none.")
    workers = default_workers(dataset) if loading.workers is None else loading.workers
    bad = BadSampleList(run_dir / "bad_samples.txt", len(dataset), loading.max_bad, console.warn)
    if _belongs_on_device(dataset, loading.cache, device):
        dataset = OnDevice(dataset, device, workers=workers, on_bad=bad.add)
        workers = 0
    loader = Loader(
        dataset,
        batch_size=train.batch_size,
        accumulate=train.num_micro,
        seed=config.seed,
        workers=workers,
        device=device,
        crops=crops if dataset.cuts_crops else None,
        on_bad=bad.add,
        advice=_advice(dataset, workers),
        ranks=ranks,
        buckets=loading.buckets,
    )
    if workers:  # the loop holds this batch and the one before
        loader.ahead = that_fits(workers, loader.item_bytes(), 2 * train.num_micro, console.warn)
    return loader


def _advice(dataset: Dataset, workers: int) -> str:
    """Return advice for a user whose model waits for data."""
    if dataset.in_memory:
        return "other work on this machine takes its CPUs"
    if workers + 1 < available_cpus():
        return f"raise dataset.workers, now {workers}; this process may use {available_cpus()} CPUs"
    if not dataset.decodes:
        return "the disk is too slow; copy the data to a faster one, or make room for them in memory"
    pack = "pack the data once at the training size with ssl-pack and use dataset=packed"
    if dataset.keeps:
        return f"the first epoch decodes, later ones read from memory; to avoid this, {pack}"
    return f"keep decoded samples with dataset.cache=memory, or {pack}"


def _belongs_on_device(dataset: Dataset, cache: str, device: torch.device) -> bool:
    """Whether to keep the dataset on the GPU.

    True for ``device``, and for ``auto`` if the dataset is in memory and fits into a quarter of the GPU's free memory.
    """
    if device.type != "cuda":
        return False
    if cache == "auto" and dataset.in_memory:
        return num_bytes(dataset.spec, len(dataset)) <= SHARE * torch.cuda.mem_get_info(device)[0]
    return cache == "device"


class OnDevice(Columns):
    """A copy of a whole dataset on the device, so that fetching a batch only indexes it and the host does not wait.

    Args:
        dataset: the dataset to copy.
        device: the device of the copy.
        workers: number of processes that read the dataset.
        on_bad: called with the corrupt samples, which are replaced.
    """

    def __init__(
        self, dataset: Dataset, device: torch.device, *, workers: int, on_bad: Callable[[Iterable[CorruptSample]], None]
    ) -> None:
        columns: dict[str, Tensor] = {}
        self._lengths: dict[str, Tensor] = {}  # of texts, on the host, where the width of a batch is found
        start = 0
        bar = tqdm(total=len(dataset), desc="reading", unit=" samples", unit_scale=True, leave=False)
        for piece, bad in in_pieces(dataset, torch.arange(len(dataset)), workers):
            on_bad(bad)
            for name, rows in piece.items():
                if name not in columns:
                    columns[name] = self._room(len(dataset), name, rows, dataset.spec, device)
                span = slice(start, start + len(rows))
                if name in self._lengths:  # the piece is as wide as its longest text
                    self._lengths[name][span] = lengths(rows, dataset.spec[name].pad)
                    columns[name][span, : rows.shape[1]] = rows.to(device)
                else:
                    columns[name][span] = rows.to(device)
            start += len(rows)
            bar.update(len(rows))
        bar.close()
        super().__init__(dataset.spec, columns, dataset.labels, dataset.classes)
        self._device = device

    def _room(self, count: int, name: str, rows: Tensor, spec: Spec, device: torch.device) -> Tensor:
        """Return room for ``count`` samples like ``rows`` on the device; texts in it are padding."""
        field = spec.get(name)
        if field is None or field.pad is None:
            return torch.empty(count, *rows.shape[1:], dtype=rows.dtype, device=device)
        self._lengths[name] = torch.zeros(count, dtype=torch.int64)
        return torch.full((count, *field.shape), field.pad, dtype=rows.dtype, device=device)

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        found = super().fetch(to_device(index, self._device))
        for name, each in self._lengths.items():
            found[name] = found[name][:, : self.spec[name].rounded(int(each[index].max()))]
        return found


def in_pieces(
    dataset: Dataset, index: Tensor, workers: int | None
) -> Iterator[tuple[dict[str, Tensor], list[CorruptSample]]]:
    """Yield the samples at ``index`` in order, in pieces of 512, with corrupt samples replaced.

    Each piece is its columns, texts as wide as its longest one needs, and the list of its corrupt samples.

    Args:
        dataset: the dataset to read.
        index: indices of the samples (N,).
        workers: number of processes that read ahead; None chooses it. Fewer than four pieces are read in this process.
    """
    source = dataset if isinstance(dataset, CorruptReplaced) else CorruptReplaced(dataset)
    pieces = _Pieces(source, index)
    count = default_workers(dataset) if workers is None else workers
    ahead = ReadAhead(0)
    if len(pieces) >= _FEW_PIECES:
        ahead = that_fits(count, num_bytes(dataset.spec, _PIECE), 2, _warn_once)
    if not ahead.workers:
        yield from _obeying(pieces[number] for number in range(len(pieces)))
        return
    for columns, bad in _obeying(by_workers(pieces, None, ahead)):
        source.corrupt_places.update(sample.where for sample in bad)  # the worker has its own copy of ``source``
        yield columns, bad


def _obeying(pieces: Iterator[T]) -> Iterator[T]:
    """Yield what ``pieces`` yields; a signal during training is obeyed even while the data never come."""
    while True:
        with signals.waiting(signals.GRACE):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


@functools.cache
def _warn_once(text: str) -> None:
    Console().warn(text)


class _Pieces(TorchDataset):
    """The pieces of a dataset as items of a torch dataset, for its workers."""

    def __init__(self, dataset: CorruptReplaced, index: Tensor) -> None:
        self.dataset, self.parts = dataset, index.split(_PIECE)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> tuple[dict[str, Tensor], list[CorruptSample]]:
        columns = trimmed(self.dataset.fetch(self.parts[number]), self.dataset.spec)
        return columns, self.dataset.last_corrupt
