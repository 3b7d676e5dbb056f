"""Running averages on the device between log lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Running sums of named scalars on the device; they are part of the checkpoint, so that no step is lost."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._count: int | Tensor = 0

    def update(self, values: Mapping[str, Tensor], finite: Tensor) -> None:
        """Add one step's detached scalars, if they are ``finite`` (a bool scalar on their device)."""
        self._names = list(values)
        stacked = torch.stack(
            [
                value.detach().to(torch.float64 if value.device.type == "cpu" else torch.float32)
                for value in values.values()
            ]
        )
        stacked = torch.where(finite, stacked, 0.0)
        self._sums = stacked if self._sums is None else self._sums + stacked
        self._count = self._count + finite.int()

    def flush(self) -> dict[str, float]:
        """Return the means since the last flush, and reset; {} of no finite step. Synchronises with the device."""
        if self._sums is None or not self._count:
            self._sums, self._count = None, 0
            return {}
        means = dict(zip(self._names, (self._sums / self._count).tolist()))
        self._sums, self._count = None, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"names": self._names, "sums": self._sums, "count": int(self._count)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self._names, self._count = list(state["names"]), state["count"]
        self._sums = None if state["sums"] is None else state["sums"].to(device)
