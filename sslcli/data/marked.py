"""A dataset that says which of its samples can be read, where every row must be of the sample that it stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.data.base import CorruptSamples, Wrapper

READABLE = "readable"


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
