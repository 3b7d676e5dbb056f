"""A dataset with its labels as a column, for objectives that read them."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.data.base import Dataset, Subset, Wrapper, with_label
from sslcli.types import Crops, Field


class Labelled(Wrapper):
    """A dataset with its labels as an additional column ``name``, for a supervised objective.

    Held-out samples without a label are dropped.

    Raises:
        ValueError: the dataset has no labels, or some samples have none, or it has a column called ``name``.
    """

    def __init__(self, dataset: Dataset, name: str) -> None:
        if dataset.labels is None:
            raise ValueError(f"label={name}: this dataset has no labels")
        if dataset.labels.dim() == 2:
            raise ValueError(f"label={name}: these samples have several labels each, and the objective reads one")
        known = with_label(dataset.labels)
        if len(known) < len(dataset):
            raise ValueError(
                f"label={name}: {len(dataset) - len(known):,} of {len(dataset):,} samples have no label; "
                "take an objective that reads none, or leave those samples out of the data"
            )
        if name in dataset.spec:
            raise ValueError(f"label={name}: the dataset has a column of that name; choose another")
        super().__init__(dataset)
        self.name = name
        self.spec = dataset.spec.having(name, Field("id", (), torch.int64, vocab=int(dataset.labels.max()) + 1))
        held_out, self.held_out = dataset.held_out, None
        if held_out is not None and held_out.labels is not None:
            known = with_label(held_out.labels)
            all_labelled = len(known) == len(held_out)
            self.held_out = Labelled(held_out if all_labelled else Subset(held_out, known), name)

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        assert self.labels is not None
        return {**self.dataset.fetch(index), self.name: self.labels[index]}

    def fetch_crops(self, index: Tensor, crops: Crops) -> dict[str, Tensor]:
        assert self.labels is not None
        return {**self.dataset.fetch_crops(index, crops), self.name: self.labels[index]}
