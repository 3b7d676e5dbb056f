"""The interface of probes: a probe measures a trained encoder and returns named metrics with their protocols."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sslcli.config.instantiate import build
from sslcli.data.base import Dataset
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.standard_errors import standard_error
from sslcli.run_dir.measurements import below_start, best_baseline, gain, number, with_error

WIDTH = 80  # of a terminal
BANK, QUERIES = 2000, 1000  # training samples and held-out samples of a probe's cheap form
Embed = Callable[[Dataset, Tensor], Tensor]  # (samples of a dataset) -> float32 features (N, D) on the CPU


@dataclass
class Metric:
    """A value, the protocol that it was measured by, and the values of baselines by the same protocol."""

    value: float
    protocol: str
    _: KW_ONLY
    unit: str  # "share" for a fraction, printed in per cent; else the word that follows the number, or ""
    higher_is_better: bool | None  # None: neither is, as for a value that depends on others
    headline: bool = False  # whether it is the one by which runs with this probe are compared
    standard_error: float | None = None  # of the value, over the queries; None without queries
    gain_standard_error: float | None = None  # of the difference to the best baseline, on the same queries
    start_standard_error: float | None = None  # of the difference to the weights that the run started from
    std: float | None = None  # standard deviation over repetitions, such as batches
    bias: float | None = None  # how far the estimate lies above the truth on average, where that is known
    baselines: dict[str, float] = field(default_factory=dict)  # their values by name
    split: str | None = None  # the samples that it was measured on: held out, or train
    seed: int | None = None  # seed of the random numbers of the measurement
    samples: int | None = None  # the limit on bank and queries that the probe chose

    def to_json(self) -> dict[str, Any]:
        """Return the entry for ``result.json``; the baselines are keys on the same level as the value."""
        flat = {"value": self.value, "std": self.std, **self.baselines, "protocol": self.protocol}
        errors = {"standard_error": self.standard_error, "gain_standard_error": self.gain_standard_error}
        facts = {"unit": self.unit, "higher_is_better": self.higher_is_better, "headline": self.headline}
        more = {
            "start_standard_error": self.start_standard_error,
            "bias": self.bias,
            "split": self.split,
            "seed": self.seed,
            "samples": self.samples,
        }
        return {**flat, **errors, **facts, **{name: value for name, value in more.items() if value is not None}}


def flat(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return values by name, and baselines by name and baseline: ``knn_top1``, ``knn_top1/random_init``."""
    return {
        key: value
        for name, metric in metrics.items()
        for key, value in {name: metric.value, **{f"{name}/{k}": v for k, v in metric.baselines.items()}}.items()
    }


def headline(metrics: Mapping[str, Metric]) -> str | None:
    """Return the name of the headline: the first metric that is marked, else the first one; None without metrics."""
    return next((name for name, metric in metrics.items() if metric.headline), next(iter(metrics), None))


def with_headline(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return the metrics with only the headline marked."""
    name = headline(metrics)
    return {key: replace(metric, headline=key == name) for key, metric in metrics.items()}


def table(metrics: Mapping[str, Metric]) -> list[str]:
    """Return the metrics as lines for a terminal: a table of values and baselines, then gains and protocols."""
    if not metrics:
        return []
    columns = list(dict.fromkeys(column for metric in metrics.values() for column in metric.baselines))
    cells = [["", "trained", *columns]] + [[name, *_cells(metric, columns)] for name, metric in metrics.items()]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in cells
    ]
    return [*lines, "", *_protocols(metrics)]


def _cells(metric: Metric, columns: Sequence[str]) -> Iterator[str]:
    yield with_error(metric)
    for name in columns:
        known = name in metric.baselines
        yield number(metric.baselines[name], metric.unit, metric.standard_error) if known else ""


def _protocols(metrics: Mapping[str, Metric]) -> Iterator[str]:
    """Yield gains and protocols as wrapped lines; a protocol that begins like the previous one is shortened."""
    previous = ""
    for name, metric in metrics.items():
        extends = previous and metric.protocol.startswith(previous)
        text = f"the same{metric.protocol.removeprefix(previous)}" if extends else metric.protocol
        previous = previous if extends else metric.protocol
        best = best_baseline(metric.baselines, metric.higher_is_better)
        gained = "" if best is None else f"{gain(metric, best)} against {best}; "
        yield from textwrap.wrap(f"{name}: {gained}{text}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    main = headline(metrics)
    lost = below_start(main, metrics[main]) if main else ""
    yield from textwrap.wrap(lost, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def in_short(title: str, metrics: Mapping[str, Metric]) -> list[str]:
    """Return the values of the trained encoder in a sentence, as lines for a terminal."""
    text = ", ".join(f"{name} {with_error(metric)}" for name, metric in metrics.items())
    return textwrap.wrap(f"{title}: {text}", WIDTH, subsequent_indent="  ", break_on_hyphens=False) if metrics else []


class Probe:
    """Measures an encoder."""

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        """Return metrics by name, each with its baselines; {} if the context lacks something, such as labels.

        Whoever leaves something out because there are too few samples says so by ``context.leave_out``.
        """
        raise NotImplementedError

    def cheap(self) -> Probe | None:
        """Return the form of this probe that is measured while a run trains, in about a second; None if it has none."""
        return None


class NoProbe(Probe):
    """Measures nothing."""

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        return {}

    def cheap(self) -> Probe:
        return self


class Several(Probe):
    """Runs several probes; they share the extracted features. The headline is that of the first that measures.

    Args:
        parts: the config section of each probe, by any name.
        max_samples: replaces that of every part; null leaves them as they are.
    """

    def __init__(self, *, parts: Mapping[str, Any], max_samples: int | None = None) -> None:
        more = {} if max_samples is None else {"max_samples": max_samples}
        self.parts = {
            name: build({**node, **more} if isinstance(node, Mapping) else node, Probe, where=f"probe.parts.{name}")
            for name, node in parts.items()
        }

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        found: dict[str, Metric] = {}
        for part in self.parts.values():
            found |= with_headline(part(context))
        return found

    def cheap(self) -> Probe | None:
        """Return the cheap forms of the parts that have one."""
        found = {name: form for name, part in self.parts.items() if (form := part.cheap()) is not None}
        if not found:
            return None
        several = Several(parts={})
        several.parts = found
        return several


def compared(
    context: ProbeContext,
    scores: Mapping[str, float | Tensor],
    protocol: str,
    *,
    unit: str,
    higher_is_better: bool | None,
    **more: Any,
) -> Metric:
    """Return the metric of ``trained``; the other entries of ``scores`` are its baselines.

    Args:
        context: what was measured on.
        scores: by representation, a score of each query (Q,), whose mean is the value, or a value without queries.
        protocol: how it was measured.
        unit: see ``Metric``.
        higher_is_better: see ``Metric``.
        more: further fields of ``Metric``.
    """
    values = {name: float(torch.as_tensor(score, dtype=torch.float64).mean()) for name, score in scores.items()}
    trained = scores["trained"]
    baselines = {name: value for name, value in values.items() if name != "trained"}
    best = best_baseline(baselines, higher_is_better)
    return Metric(
        values["trained"],
        protocol,
        unit=unit,
        higher_is_better=higher_is_better,
        baselines=baselines,
        standard_error=standard_error(trained) if isinstance(trained, Tensor) else None,
        gain_standard_error=None if best is None else _paired(trained, scores[best]),
        start_standard_error=_paired(trained, scores["start"]) if "start" in scores else None,
        **{"split": context.split, "seed": context.seed, **more},
    )


def _paired(trained: float | Tensor, baseline: float | Tensor) -> float | None:
    """Return the standard error of the difference of two means over the same queries."""
    if isinstance(trained, Tensor) and isinstance(baseline, Tensor):
        return standard_error(trained.double() - baseline.double())
    return None
