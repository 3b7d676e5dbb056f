"""The interface of datasets: named columns, read by index; labels for probes; and a held-out part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data.classes import share_classes
from sslcli.data.fingerprints import LIMIT, of_samples
from sslcli.errors import UserError
from sslcli.graph import Rankings
from sslcli.run_dir.fitted import Fitted
from sslcli.types import Crops, Spec

Notes = tuple[tuple[str, str], ...]  # what the start lines say of some data: a word, and what was found or left out


@dataclass(frozen=True)
class CorruptSample:
    """A sample that cannot be read."""

    where: str  # path of its file, or its place in a file
    reason: str


class CorruptSamples(Exception):
    """Some of the requested samples are corrupt; all others can be read.

    Args:
        rows: the corrupt samples, by their row in the request.
    """

    def __init__(self, rows: Mapping[int, CorruptSample]) -> None:
        super().__init__("; ".join(f"{bad.where}: {bad.reason}" for bad in rows.values()))
        self.rows = dict(rows)


class Dataset:
    """Samples that are read by index as named columns.

    Training uses ``fetch`` or ``fetch_crops`` only; ``labels`` and ``held_out`` are for probes.
    """

    spec: Spec
    labels: Tensor | None = None  # (N,) int64, -1 for none, or (N, C) bool, several a sample; None where no one has any
    classes: tuple[str, ...] = ()  # the name of each label, by its value; () where the names are not known
    notes: Notes = ()
    counted: str = ""  # what was changed or left out when samples were read, for the protocols of measurements
    held_out: Dataset | None = None  # samples that training never reads; probes use them as queries
    cuts_crops: bool = False  # whether training uses ``fetch_crops``
    keeps: bool = False  # whether samples are cached in memory when they are first read
    in_memory: bool = False  # whether ``fetch`` only indexes an array in memory
    has_own_scale: bool = False  # whether mean and std are to be measured, as nothing else is known of the numbers
    decodes: bool = False  # whether ``fetch`` decodes pictures, which takes more CPU time than reading
    rankings: Rankings | None = None  # of a held-out part with users and items: what is to be recommended to whom

    def __len__(self) -> int:
        raise NotImplementedError

    def fit(self, files: Fitted) -> Dataset:
        """Return this dataset with what is fitted on its training part, from ``files`` or made there.

        The constructor only looks at the data, as the name of a run needs no more. A dataset with a tokenizer, a map of
        ids or means returns another one here, whose ``spec``, ``labels`` and ``held_out`` are those of the samples.
        """
        return self

    def fingerprint(self, limit: int = LIMIT) -> str:
        """Return a text that identifies the samples and their order; a run is resumed only if it is the same.

        It has a digest of the content, if that is at most ``limit`` bytes, or of 64 drawn samples. With ``limit=0`` it
        is quickly made, for the name of a run. A dataset of files should override this with ``fingerprints.of_files``.
        """
        return f"{len(self)} samples, {of_samples(self, limit)}"

    def old_fingerprint(self) -> str:
        """Return the text that checkpoints of formats 1 and 2 have instead of ``fingerprint``."""
        return f"{len(self)} samples"

    def name_of(self, i: int) -> str:
        """Return the name of the i-th sample for people: its path, or its number if it has no path."""
        return str(i)

    def deep_values(self, index: Tensor) -> np.ndarray:
        """Return some of the integers of more than 8 bits in the pictures at ``index``; none if there are none."""
        return np.zeros(0, np.int64)

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        """Return the columns of the samples at ``index`` (B,), each with first dimension B.

        Raises:
            CorruptSamples: some samples are corrupt.
        """
        raise NotImplementedError

    def fetch_crops(self, index: Tensor, crops: Crops) -> dict[str, Tensor]:
        """Like ``fetch``, but with a column ``image/k`` for each view k: its crop, cut from the full image."""
        raise NotImplementedError


class Columns(Dataset):
    """A dataset whose columns are tensors in memory."""

    in_memory = True

    def __init__(
        self,
        spec: Spec,
        columns: Mapping[str, Tensor],
        labels: Tensor | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        self.spec = spec
        self.columns = dict(columns)
        self.labels, self.classes = labels, classes

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


class Wrapper(Dataset):
    """A dataset that wraps another one and forwards to it whatever a subclass does not override.

    Attributes that only the wrapped dataset has are read from it, too, such as the texts that its ids stand for.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        for name in Dataset.__annotations__:  # these have defaults in the class, which __getattr__ would never see
            setattr(self, name, getattr(dataset, name))

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that this class does not have from the wrapped dataset."""
        if name == "dataset" or name.startswith("__"):  # while it is unpickled, there is no wrapped dataset yet
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def fingerprint(self, limit: int = LIMIT) -> str:
        return self.dataset.fingerprint(limit)

    def old_fingerprint(self) -> str:
        return self.dataset.old_fingerprint()

    def name_of(self, i: int) -> str:
        return self.dataset.name_of(i)

    def deep_values(self, index: Tensor) -> np.ndarray:
        return self.dataset.deep_values(index)


class Subset(Wrapper):
    """The samples of a dataset at ``index`` (N,), in this order."""

    def __init__(self, dataset: Dataset, index: Tensor) -> None:
        super().__init__(dataset)
        self.index = index
        self.labels = None if dataset.labels is None else any_known(dataset.labels[index])
        self.held_out = None

    def __len__(self) -> int:
        return len(self.index)

    def fingerprint(self, limit: int = LIMIT) -> str:
        return f"{len(self)} of {self.dataset.fingerprint(limit)}"

    def old_fingerprint(self) -> str:
        return f"{len(self)} of {self.dataset.old_fingerprint()}"

    def name_of(self, i: int) -> str:
        return self.dataset.name_of(int(self.index[i]))

    def deep_values(self, index: Tensor) -> np.ndarray:
        return self.dataset.deep_values(self.index[index])

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        return self.dataset.fetch(self.index[index])

    def fetch_crops(self, index: Tensor, crops: Crops) -> dict[str, Tensor]:
        return self.dataset.fetch_crops(self.index[index], crops)


def with_held_out(train: Dataset, test: Dataset | None, holdout: float | None, first: Tensor | None = None) -> Dataset:
    """Return the training part of a dataset, with the query samples of probes as its ``held_out``.

    Without ``holdout``, ``held_out`` is the test split, whose labels get the numbers that train has for the classes of
    these names. With it, ``held_out`` is this fraction of train, for choosing settings without using the test split.
    Without both, it is 20 % of train if there are labels, else 5 %. A fixed seed chooses the samples. If only some
    samples have labels, they are chosen among those, because probes need labels. Samples that are one file go where the
    first of them goes, whose number is in ``first`` (N,).

    Raises:
        UserError: ``holdout`` is not a fraction.
    """
    if holdout is None and test is not None:
        share_classes(train, test)
        train.held_out = test
        return train
    if holdout is None:
        holdout = 0.2 if train.labels is not None else 0.05
    if not 0 <= holdout < 1:
        raise UserError(f"dataset.holdout: {holdout} is not a fraction; give a number from 0 to below 1.")
    candidates = torch.arange(len(train)) if train.labels is None else with_label(train.labels)
    order = candidates[torch.randperm(len(candidates), generator=torch.Generator().manual_seed(0))]
    count = min(round(holdout * len(candidates)), len(train) - 1)
    held_out = torch.zeros(len(train), dtype=torch.bool).index_fill(0, order[:count], True)
    held_out = held_out if first is None else held_out[first]
    kept = Subset(train, torch.nonzero(~held_out)[:, 0])
    kept.held_out = Subset(train, torch.nonzero(held_out)[:, 0]) if count else None
    return kept


def with_label(labels: Tensor) -> Tensor:
    """Return the indices of the samples that have a label other than -1; with several labels a sample, of all."""
    if labels.dim() == 2:
        return torch.arange(len(labels))
    return torch.nonzero(labels >= 0)[:, 0]


def any_known(labels: Tensor) -> Tensor | None:
    """Return the labels, or None if no sample has one."""
    return labels if len(with_label(labels)) else None
