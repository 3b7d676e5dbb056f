"""Which samples are used where not all of a dataset are."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from sslcli.data.base import with_label


def drawn(size: int, count: int) -> Tensor:
    """Return ``count`` of ``size`` indices, or all of them, chosen with a fixed seed.

    The first samples of a dataset would not do, because they may all have the same class.
    """
    return torch.tensor(random.Random(0).sample(range(size), min(count, size)), dtype=torch.int64)


def balanced(labels: Tensor, count: int) -> Tensor:
    """Return indices of at most ``count`` labelled samples, with classes as balanced as the labels (N,) allow.

    With several labels a sample, (N, C), they are drawn at random.
    """
    order = with_label(labels)
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(0))]
    if labels.dim() == 2:
        return order[:count].sort().values
    shuffled = labels[order].unique(return_inverse=True)[1]
    by_class = torch.argsort(shuffled, stable=True)
    # Rank of each sample within its class; the lowest ranks of all classes come first.
    starts = torch.cumsum(torch.bincount(shuffled), 0) - torch.bincount(shuffled)
    rank = torch.empty_like(shuffled)
    rank[by_class] = torch.arange(len(order)) - starts[shuffled[by_class]]
    return order[torch.argsort(rank, stable=True)[:count]].sort().values
