"""What a probe is: it measures a trained encoder and returns named numbers with their protocol."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sslcli.config.instantiate import build
from sslcli.data.base import Dataset
from sslcli.evaluation.context import ProbeContext
from sslcli.run_dir.formatting import number

WIDTH = 80  # of a terminal
Embed = Callable[[Dataset, Tensor], Tensor]  # (samples of a dataset) -> float32 features (N, D) on the CPU


@dataclass
class Metric:
    """One number, how it was come by, and the same protocol on what this training had no part in."""

    value: float
    protocol: str
    std: float | None = None
    samples: int | None = None  # the limit on bank and queries that it was measured with
    controls: dict[str, float] = field(default_factory=dict)
    split: str | None = None  # the samples that it was read from: held out, or train
    seed: int | None = None  # of everything that was drawn for it

    def to_json(self) -> dict[str, Any]:
        """As it stands in ``result.json``: the controls beside the value."""
        flat = {"value": self.value, "std": self.std, **self.controls, "protocol": self.protocol}
        more = {"split": self.split, "seed": self.seed, "samples": self.samples}
        return {**flat, **{name: value for name, value in more.items() if value is not None}}


def flat(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Values by name, and controls by name and control: ``knn_top1``, ``knn_top1/random_init``."""
    return {
        key: value
        for name, metric in metrics.items()
        for key, value in {name: metric.value, **{f"{name}/{k}": v for k, v in metric.controls.items()}}.items()
    }


def table(metrics: Mapping[str, Metric]) -> list[str]:
    """The metrics as lines for a terminal: a row each, value and controls side by side, and the protocols below."""
    if not metrics:
        return []
    values = {name: {"trained": metric.value, **metric.controls} for name, metric in metrics.items()}
    columns = list(dict.fromkeys(column for row in values.values() for column in row))
    cells = [["", *columns]] + [
        [name, *(number(name, row[column]) if column in row else "" for column in columns)]
        for name, row in values.items()
    ]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in cells
    ]
    return [*lines, "", *_protocols(metrics)]


def _protocols(metrics: Mapping[str, Metric]) -> Iterator[str]:
    """How each was measured, wrapped; what one has in common with the one above is not said again."""
    above = ""
    for name, metric in metrics.items():
        goes_on = above and metric.protocol.startswith(above)
        said = f"the same{metric.protocol.removeprefix(above)}" if goes_on else metric.protocol
        above = metric.protocol
        yield from textwrap.wrap(f"{name}: {said}", WIDTH, subsequent_indent="  ")


class Probe:
    """Measures an encoder."""

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        """Metrics by name, each with its controls; none where the context lacks what it takes, such as labels."""
        raise NotImplementedError


class NoProbe(Probe):
    """Measures nothing."""

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        return {}


class Several(Probe):
    """Probes one after the other; they share the features that one of them has extracted.

    Args:
        parts: each probe's section by a name of one's own.
    """

    def __init__(self, *, parts: Mapping[str, Any]) -> None:
        self.parts = {name: build(node, Probe, where=f"probe.parts.{name}") for name, node in parts.items()}

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        found: dict[str, Metric] = {}
        for part in self.parts.values():
            found |= part(context)
        return found


def compared(context: ProbeContext, values: Mapping[str, float], protocol: str, **more: Any) -> Metric:
    """The metric of ``context`` from the values by what was measured: ``trained``, and the controls beside it."""
    controls = {name: value for name, value in values.items() if name != "trained"}
    facts = {"split": context.split, "seed": context.seed, **more}
    return Metric(values["trained"], protocol, controls=controls, **facts)
