"""Corrupt samples: replaced by others in training, flagged where every row must be of the sample that it stands for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.data.base import CorruptSample, CorruptSamples, Dataset, Wrapper
from sslcli.errors import UserError
from sslcli.randomness import fold
from sslcli.types import Crops

_TRIES = 50
READABLE = "readable"  # the column that flags them


class CorruptReplaced(Wrapper):
    """``dataset`` with each bad sample replaced by another, of its own class where that has one that can be read.

    A replacement is a function of the sample's index, so that every worker and every resumed run agrees.
    ``met`` holds the bad samples of the last request, for the loader to count, ``places`` where all of them are.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.held_out = None if dataset.held_out is None else CorruptReplaced(dataset.held_out)
        self.met: list[CorruptSample] = []
        self.places: set[str] = set()
        self.bad: dict[int, CorruptSample] = {}  # all that this process has met, by index

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        return self._replaced(index, self.dataset.fetch)

    def fetch_crops(self, index: Tensor, crops: Crops) -> dict[str, Tensor]:
        return self._replaced(index, lambda chosen: self.dataset.fetch_crops(chosen, crops))

    def _replaced(self, index: Tensor, fetch: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What ``fetch`` gives for ``index``, where needed with others in the place of some.

        Raises:
            UserError: whatever is tried for a sample is bad too.
        """
        met: dict[int, CorruptSample] = {}
        while True:
            chosen = [self._readable(i, met) for i in index.tolist()]
            try:
                columns = fetch(torch.tensor(chosen, dtype=torch.int64))
            except CorruptSamples as error:
                self.bad.update({chosen[row]: bad for row, bad in error.rows.items()})
            else:
                self.met = list(met.values())
                self.places.update(bad.where for bad in self.met)
                return columns

    def _readable(self, wanted: int, met: dict[int, CorruptSample]) -> int:
        """``wanted``, or the first in its chain of replacements that is not known to be bad."""
        chosen = wanted
        for attempt in range(_TRIES):
            if chosen not in self.bad:
                return chosen
            met[chosen] = self.bad[chosen]
            chosen = self._replacement(wanted, attempt)
        first = self.bad[wanted]
        raise UserError(
            f"dataset.path: too many samples cannot be read, the first {first.where} ({first.reason}). "
            "Check the data, or point dataset.path at what is whole."
        )

    def _replacement(self, wanted: int, attempt: int) -> int:
        drawn = fold(wanted, "replacement", attempt)
        if self.labels is None or attempt >= _TRIES // 2:  # perhaps its whole class is bad
            return drawn % len(self)
        alike = torch.nonzero(self.labels == self.labels[wanted])[:, 0]
        return int(alike[drawn % len(alike)])


class CorruptFlagged(Wrapper):
    """``dataset`` with a column ``readable`` (B,) bool; pictures that cannot be read are black."""

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        readable = torch.ones(len(index), dtype=torch.bool)
        try:
            columns = self.dataset.fetch(index)
        except CorruptSamples as error:
            readable[list(error.rows)] = False
            read = self.dataset.fetch(index[readable]) if readable.any() else {}
            columns = {name: self._spread(name, read.get(name), readable) for name in self.spec}
        return {**columns, READABLE: readable}

    def _spread(self, name: str, rows: Tensor | None, where: Tensor) -> Tensor:
        """A column (B, ...) with ``rows`` at the places ``where`` (B,) is true, and zeros elsewhere."""
        spread = torch.zeros(len(where), *self.spec[name].shape, dtype=torch.uint8 if rows is None else rows.dtype)
        if rows is not None:
            spread[where] = rows
        return spread
