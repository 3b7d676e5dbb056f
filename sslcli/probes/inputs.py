"""What the input itself is worth, without any encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.datasets.base import Dataset
from sslcli.probes.axes import principal_axes
from sslcli.probes.subject import numbers

Rows = tuple[Tensor, Tensor]  # (bank, queries), (N, D) and (Q, D)


def raw(dataset: Dataset, bank: Tensor, held_out: Dataset, queries: Tensor) -> Rows | None:
    """The first column of the data as rows of numbers; None for ids, which have no geometry."""
    name, column = next(iter(dataset.spec.items()))
    if column.vocab:
        return None
    return _rows(dataset, bank, name), _rows(held_out, queries, name)


def reduced(rows: Rows | None) -> dict[str, Rows]:
    """Raw rows by name: as they are, centred, and on 64 principal components, both fitted on the bank."""
    if rows is None:
        return {}
    bank, queries = rows
    mean = bank.mean(0)
    centred = bank - mean, queries - mean
    _, axes = principal_axes(centred[0], 64)
    name = f"pca{axes.shape[1]}"
    return {"raw_input": rows, "centred": centred, name: (centred[0] @ axes, centred[1] @ axes)}


def _rows(dataset: Dataset, index: Tensor, name: str) -> Tensor:
    return torch.cat([numbers(dataset.fetch(part)[name]) for part in index.split(1024)])
