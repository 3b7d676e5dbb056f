"""Two ways to handle corrupt samples: replace them, for training, or flag them, where each row must keep its sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.data.base import CorruptSample, CorruptSamples, Dataset, Wrapper
from sslcli.errors import UserError
from sslcli.randomness import fold
from sslcli.types import Crops

_TRIES = 50
READABLE = "readable"  # name of the column of flags


class CorruptReplaced(Wrapper):
    """``dataset`` with each corrupt sample replaced by another one, if possible of the same class.

    The replacement depends on the index of the sample only, so it is the same in every worker and every resumed run.

    Attributes:
        last_corrupt: the corrupt samples of the last request, which the loader counts.
        corrupt_places: the places of all corrupt samples that were found, also by workers.
        known_corrupt: the corrupt samples that this process has found, by index.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.held_out = None if dataset.held_out is None else CorruptReplaced(dataset.held_out)
        self.last_corrupt: list[CorruptSample] = []
        self.corrupt_places: set[str] = set()
        self.known_corrupt: dict[int, CorruptSample] = {}

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        return self._replaced(index, self.dataset.fetch)

    def fetch_crops(self, index: Tensor, crops: Crops) -> dict[str, Tensor]:
        return self._replaced(index, lambda chosen: self.dataset.fetch_crops(chosen, crops))

    def _replaced(self, index: Tensor, fetch: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Call ``fetch`` for ``index``, with corrupt samples replaced.

        Raises:
            UserError: all replacements that were tried for a sample are corrupt, too.
        """
        found: dict[int, CorruptSample] = {}
        while True:
            chosen = index  # looking each up took a fifth of a step on pairs of ids
            if self.known_corrupt:
                chosen = torch.tensor([self._readable(i, found) for i in index.tolist()], dtype=torch.int64)
            try:
                columns = fetch(chosen)
            except CorruptSamples as error:
                self.known_corrupt.update({int(chosen[row]): sample for row, sample in error.rows.items()})
            else:
                self.last_corrupt = list(found.values())
                self.corrupt_places.update(sample.where for sample in self.last_corrupt)
                return columns

    def _readable(self, wanted: int, found: dict[int, CorruptSample]) -> int:
        """Return ``wanted`` or its first replacement that is not known as corrupt; add corrupt ones to ``found``."""
        chosen = wanted
        for attempt in range(_TRIES):
            if chosen not in self.known_corrupt:
                return chosen
            found[chosen] = self.known_corrupt[chosen]
            chosen = self._replacement(wanted, attempt)
        first = self.known_corrupt[wanted]
        raise UserError(
            f"dataset.path: too many samples cannot be read, the first {first.where} ({first.reason}). "
            "Check the data, or give another dataset.path."
        )

    def _replacement(self, wanted: int, attempt: int) -> int:
        drawn = fold(wanted, "replacement", attempt)
        several = self.labels is not None and self.labels.dim() == 2
        if self.labels is None or several or attempt >= _TRIES // 2:  # perhaps all samples of its class are corrupt
            return drawn % len(self)
        same_class = torch.nonzero(self.labels == self.labels[wanted])[:, 0]
        return int(same_class[drawn % len(same_class)])


class CorruptFlagged(Wrapper):
    """``dataset`` with an additional column ``readable`` (B,) bool; corrupt samples are zeros, which is black."""

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        readable = torch.ones(len(index), dtype=torch.bool)
        try:
            columns = self.dataset.fetch(index)
        except CorruptSamples as error:
            readable[list(error.rows)] = False
            read = self.dataset.fetch(index[readable]) if readable.any() else {}
            columns = {name: self._spread(name, read.get(name), readable) for name in self.spec}
        return {**columns, READABLE: readable}

    def _spread(self, name: str, rows: Tensor | None, mask: Tensor) -> Tensor:
        """Return a column (B, ...) with ``rows`` where ``mask`` (B,) is True, and zeros elsewhere."""
        field = self.spec[name]
        zero = torch.zeros(1, *field.shape, dtype=field.dtype)
        found = zero if rows is None else torch.cat([zero, rows])
        return found[torch.where(mask, mask.cumsum(0), 0)]  # assigning by a mask is not possible for every dtype
