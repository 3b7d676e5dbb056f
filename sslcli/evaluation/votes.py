"""The vote of nearest neighbours on the class of a query, weighted by their similarity."""

from __future__ import annotations

import torch
from torch import Tensor


def vote(similarity: Tensor, labels: Tensor, *, temperature: float, num_classes: int) -> Tensor:
    """Return the class (Q,) with the largest sum of weights exp(cos / temperature).

    Args:
        similarity: (Q, k) cosines of the neighbours, descending.
        labels: (Q, k) classes of the neighbours.
        temperature: temperature of the weights.
        num_classes: number of classes; all labels are below it.
    """
    weight = _weights(similarity, temperature)
    return torch.zeros(len(labels), num_classes).scatter_add_(1, labels, weight).argmax(1)


def _weights(similarity: Tensor, temperature: float) -> Tensor:
    """Return the weights (Q, k) of neighbours, relative to the nearest, so that small temperatures do not overflow."""
    return ((similarity - similarity[:, :1]) / temperature).exp()


def shares(similarity: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the share (Q, C) of the vote's weights that neighbours with each of their labels (Q, k, C) have."""
    weight = _weights(similarity, temperature)
    return (weight[:, None] @ labels.float())[:, 0] / weight.sum(1, keepdim=True)
