"""Averages kept on the device between log lines, and the line-by-line record of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslcli.run_dir.files import writable, write_text


class Meter:
    """Running sums of named scalars on the device; part of the checkpoint, so that no step is lost."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums: Tensor | None = None
        self._count = 0

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Add one step's detached scalars."""
        self._names = list(values)
        stacked = torch.stack(
            [
                value.detach().to(torch.float64 if value.device.type == "cpu" else torch.float32)
                for value in values.values()
            ]
        )
        self._sums = stacked if self._sums is None else self._sums + stacked
        self._count += 1

    def flush(self) -> dict[str, float]:
        """The means since the last flush; waits for the device."""
        if self._sums is None:
            return {}
        means = dict(zip(self._names, (self._sums / self._count).tolist()))
        self._sums, self._count = None, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        return {"names": self._names, "sums": self._sums, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self._names, self._count = list(state["names"]), state["count"]
        self._sums = None if state["sums"] is None else state["sums"].to(device)


class JsonLines:
    """``metrics.jsonl``: one object a line, flushed as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, step: int) -> None:
        """Drop the lines after ``step``, and a last line that a kill cut short: no step missing or repeated."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line."""
        with writable(self.path), self.path.open("a") as file:
            file.write(json.dumps(dict(values)) + "\n")
