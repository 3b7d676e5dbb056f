"""What a probe is: it reads a trained encoder on labelled splits and returns named numbers with their protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sslcli.datasets.base import Dataset

Embed = Callable[[Dataset, Tensor], Tensor]  # (samples of a dataset) -> float32 features (N, D) on the CPU


@dataclass
class Metric:
    """One number, its protocol, and the same protocol on inputs that no training touched."""

    value: float
    protocol: str
    std: float | None = None
    samples: int | None = None  # the limit on bank and queries that it was measured with
    controls: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``result.json``: the controls beside the value."""
        flat = {"value": self.value, "std": self.std, **self.controls, "protocol": self.protocol}
        return flat if self.samples is None else {**flat, "samples": self.samples}


def table(metrics: Mapping[str, Metric]) -> list[str]:
    """The metrics as lines for a terminal: value, controls, protocol."""
    lines = []
    for name, metric in metrics.items():
        rows = {"trained": metric.value, **metric.controls}
        width = max(map(len, rows))
        lines.append(f"{name}  ({metric.protocol})")
        for label, value in rows.items():
            number = f"{100 * value:6.2f} %" if name.endswith("top1") else f"{value:8.4f}"
            lines.append(f"  {label:<{width}}  {number}")
    return lines


class Probe:
    """Measures an encoder."""

    def __call__(self, dataset: Dataset, trained: Embed, untrained: Embed, budget: float) -> dict[str, Metric]:
        """Metrics by name.

        Args:
            dataset: the training split, whose ``held_out`` part is queried.
            trained: features of the run's encoder.
            untrained: features of its random initialisation.
            budget: seconds that it may take, where its size is left to it.
        """
        raise NotImplementedError


class NoProbe(Probe):
    """Measures nothing."""

    def __call__(self, dataset: Dataset, trained: Embed, untrained: Embed, budget: float) -> dict[str, Metric]:
        return {}
