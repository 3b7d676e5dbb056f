"""The interface of probes: a probe measures a trained encoder and returns named metrics with their protocols."""

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
    """A value, the protocol that it was measured by, and the values of baselines by the same protocol."""

    value: float
    protocol: str
    std: float | None = None
    samples: int | None = None  # the limit on bank and queries that the probe chose
    controls: dict[str, float] = field(default_factory=dict)  # values of the baselines by name
    split: str | None = None  # the samples that it was measured on: held out, or train
    seed: int | None = None  # seed of the random numbers of the measurement

    def to_json(self) -> dict[str, Any]:
        """Return the entry for ``result.json``; the baselines are keys on the same level as the value."""
        flat = {"value": self.value, "std": self.std, **self.controls, "protocol": self.protocol}
        more = {"split": self.split, "seed": self.seed, "samples": self.samples}
        return {**flat, **{name: value for name, value in more.items() if value is not None}}


def flat(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return values by name, and baselines by name and baseline: ``knn_top1``, ``knn_top1/random_init``."""
    return {
        key: value
        for name, metric in metrics.items()
        for key, value in {name: metric.value, **{f"{name}/{k}": v for k, v in metric.controls.items()}}.items()
    }


def table(metrics: Mapping[str, Metric]) -> list[str]:
    """Return the metrics as lines for a terminal: a table of values and baselines, and the protocols below it."""
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
    """Yield the protocols as wrapped lines; a protocol that begins like the previous one is shortened."""
    previous = ""
    for name, metric in metrics.items():
        extends = previous and metric.protocol.startswith(previous)
        text = f"the same{metric.protocol.removeprefix(previous)}" if extends else metric.protocol
        previous = metric.protocol
        yield from textwrap.wrap(f"{name}: {text}", WIDTH, subsequent_indent="  ")


class Probe:
    """Measures an encoder."""

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        """Return metrics by name, each with its baselines; {} if the context lacks something, such as labels."""
        raise NotImplementedError


class NoProbe(Probe):
    """Measures nothing."""

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        return {}


class Several(Probe):
    """Runs several probes; they share the extracted features.

    Args:
        parts: the config section of each probe, by any name.
    """

    def __init__(self, *, parts: Mapping[str, Any]) -> None:
        self.parts = {name: build(node, Probe, where=f"probe.parts.{name}") for name, node in parts.items()}

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        found: dict[str, Metric] = {}
        for part in self.parts.values():
            found |= part(context)
        return found


def compared(context: ProbeContext, values: Mapping[str, float], protocol: str, **more: Any) -> Metric:
    """Return the metric with the value of ``trained``; the other entries of ``values`` are its baselines."""
    controls = {name: value for name, value in values.items() if name != "trained"}
    facts = {"split": context.split, "seed": context.seed, **more}
    return Metric(values["trained"], protocol, controls=controls, **facts)
