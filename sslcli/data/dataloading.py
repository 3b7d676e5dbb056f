"""How the data of a run is fed: what is kept where, how many workers read the rest, what is counted as bad."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from sslcli.config.sections import FeedSection, TrainSection
from sslcli.data.base import Bad, Columns, Dataset
from sslcli.data.corrupt import Mended
from sslcli.data.loader import Loader
from sslcli.data.ram_cache import Cached, free_memory, num_bytes
from sslcli.data.workers import available_cpus, by_workers, default_workers
from sslcli.distributed import Ranks
from sslcli.errors import UserError
from sslcli.randomness import to_device
from sslcli.run_dir.bad_samples import BadSampleList
from sslcli.run_dir.console import Console
from sslcli.training.device import Compute
from sslcli.views.base import Views

SHARE = 0.25  # of the memory that is free, which ``dataset.cache=auto`` is content with
_PIECE = 512  # samples at a time where a dataset is read through
_FEW_PIECES = 4


def kept_in_memory(dataset: Dataset, cache: str) -> Dataset:
    """The dataset, with its decoded pictures kept in memory from their first reading if ``cache`` says so.

    ``auto`` keeps what fits into a quarter of the free memory; what is in memory already is left as it is.
    """
    whole = len(dataset) + (len(dataset.held_out) if dataset.held_out is not None else 0)
    fits = num_bytes(dataset.spec, whole) <= SHARE * free_memory()
    pictures = all(len(field.shape) == 3 for field in dataset.spec.values())
    if dataset.in_memory or dataset.cuts_crops or not pictures:
        return dataset
    return Cached(dataset) if cache == "memory" or (cache == "auto" and fits) else dataset


def make_loader(
    config: Mapping[str, Any],
    dataset: Dataset,
    views: Views,
    compute: Compute,
    run_dir: Path,
    console: Console,
    ranks: Ranks,
) -> Loader:
    """The loader of a run.

    Raises:
        UserError: sizes that do not fit each other, or keys that contradict each other.
    """
    train, feed = TrainSection(**config["train"]), FeedSection.of(config["dataset"])
    if train.batch_size % (train.accumulate * ranks.size):
        raise UserError(
            f"train.batch_size={train.batch_size} is not a multiple of {ranks.size} processes x "
            f"train.accumulate={train.accumulate}. Give a multiple of {ranks.size * train.accumulate}."
        )
    if train.batch_size > len(dataset):
        raise UserError(
            f"train.batch_size={train.batch_size} is more than the {len(dataset)} training samples. "
            f"Give at most {len(dataset)}."
        )
    if dataset.cuts_crops and feed.cache in ("memory", "device"):
        raise UserError(f"dataset.cache={feed.cache}: with dataset.crop=worker every crop is new. Use cache=none.")
    workers = default_workers(dataset) if feed.workers is None else feed.workers
    bad = BadSampleList(run_dir / "bad_samples.txt", len(dataset), feed.max_bad, console.warn)
    if _belongs_on_device(dataset, feed.cache, compute.device):
        dataset = OnDevice(dataset, compute.device, workers=workers, on_bad=bad.add)
        workers = 0
    return Loader(
        dataset,
        batch_size=train.batch_size,
        accumulate=train.accumulate,
        seed=config["seed"],
        workers=workers,
        device=compute.device,
        crops=views.crops if dataset.cuts_crops else None,
        on_bad=bad.add,
        advice=_advice(dataset, workers),
        ranks=ranks,
    )


def _advice(dataset: Dataset, workers: int) -> str:
    """What to do where the model waits for data."""
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
    """Asked for, or ``auto`` and it fits into a quarter of the GPU's free memory without having to be decoded first."""
    if device.type != "cuda":
        return False
    if cache == "auto" and dataset.in_memory:
        return num_bytes(dataset.spec, len(dataset)) <= SHARE * torch.cuda.mem_get_info(device)[0]
    return cache == "device"


class OnDevice(Columns):
    """A whole dataset on the device, read through once; a batch is an index, which the host does not wait for.

    Args:
        dataset: what is read.
        device: where it is kept.
        workers: processes that read it.
        on_bad: told of the samples that could not be read and were replaced.
    """

    def __init__(
        self, dataset: Dataset, device: torch.device, *, workers: int, on_bad: Callable[[Iterable[Bad]], None]
    ) -> None:
        columns: dict[str, Tensor] = {}
        start = 0
        bar = tqdm(total=len(dataset), desc="reading", unit=" samples", unit_scale=True, leave=False)
        for piece, bad in in_pieces(dataset, torch.arange(len(dataset)), workers):
            on_bad(bad)
            for name, rows in piece.items():
                if name not in columns:
                    columns[name] = torch.empty(len(dataset), *rows.shape[1:], dtype=rows.dtype, device=device)
                columns[name][start : start + len(rows)] = rows.to(device)
            start += len(rows)
            bar.update(len(rows))
        bar.close()
        super().__init__(dataset.spec, columns, dataset.labels)
        self._device = device

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        return super().fetch(to_device(index, self._device))


def in_pieces(dataset: Dataset, index: Tensor, workers: int | None) -> Iterator[tuple[dict[str, Tensor], list[Bad]]]:
    """The samples at ``index`` in order, a few hundred at a time, with the bad ones among them replaced.

    Args:
        dataset: what is read.
        index: (N,).
        workers: processes that read ahead; null chooses. A few pieces are read in this process: workers take longer
            to start.
    """
    source = dataset if isinstance(dataset, Mended) else Mended(dataset)
    pieces = _Pieces(source, index)
    count = default_workers(dataset) if workers is None else workers
    if len(pieces) < _FEW_PIECES or not count:
        yield from (pieces[number] for number in range(len(pieces)))
        return
    for columns, bad in by_workers(pieces, None, count):
        source.places.update(sample.where for sample in bad)  # met in a worker, whose memory is its own
        yield columns, bad


class _Pieces(TorchDataset):
    """Parts of a dataset by number, for torch's workers."""

    def __init__(self, dataset: Mended, index: Tensor) -> None:
        self.dataset, self.parts = dataset, index.split(_PIECE)

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> tuple[dict[str, Tensor], list[Bad]]:
        return self.dataset.fetch(self.parts[number]), self.dataset.met
