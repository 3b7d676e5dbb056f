"""Masks that hide more of one sample than of another, and a wrong objective that only such masks expose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor

from sslcli.features import Features
from sslcli.objectives.masking import MASKS
from sslcli.objectives.simmim import SimMIM
from sslcli.randomness import Randomness


def unequal_cells(randomness: Randomness, name: str, rows: int, cols: int, count: int) -> Tensor:
    """Return masks (B, rows, cols) with a uniform number of hidden cells, at least 1 and not all; ignore ``count``."""
    cells = rows * cols
    numbers = 1 + (randomness.uniform(f"{name}, how many", 1) * (cells - 1)).long()  # (B, 1)
    places = randomness.uniform(name, cells).argsort(dim=1).argsort(dim=1)
    return (places < numbers).unflatten(1, (rows, cols))


@contextmanager
def unequal_masks() -> Iterator[None]:
    """Make objectives that are built in this block draw ``unequal_cells``, for any kind of mask in their config."""
    with mock.patch.dict(MASKS, {kind: (unequal_cells, count) for kind, (_, count) in MASKS.items()}):
        yield


class MeanOfMeans(SimMIM):
    """Wrong on purpose: ``project`` divides by the hidden pixels of its own micro-batch, not of the whole batch.

    The loss becomes the mean over the micro-batches of their means, which depends on how the batch is cut, but only
    where micro-batches hide unequal numbers of pixels.
    """

    def project(self, features: Features) -> dict[str, Tensor]:
        rows = super().project(features)
        return {**rows, "error": rows["error"] / rows["count"].mean(), "count": torch.ones_like(rows["count"])}
