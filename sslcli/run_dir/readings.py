"""Metrics as they are read from ``result.json`` and ``eval.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sslcli.config.composed import read
from sslcli.run_dir.formatting import is_number
from sslcli.run_dir.json_files import JsonFile
from sslcli.run_dir.old_metrics import is_metric, metric_up_to_date

# Numbers of an entry that are not baselines.
_ERRORS = ("standard_error", "gain_standard_error", "start_standard_error", "std")
_NOT_BASELINES = ("value", *_ERRORS, "bias", "samples", "seed", "step")


@dataclass(frozen=True)
class Reading:
    """A metric as read from a file."""

    value: float
    protocol: str = ""
    unit: str = ""  # see Metric
    higher_is_better: bool | None = None
    standard_error: float | None = None
    gain_standard_error: float | None = None
    start_standard_error: float | None = None
    std: float | None = None
    bias: float | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
    step: int | None = None  # of the checkpoint; in eval.json only
    seed: int | None = None
    samples: int | None = None
    weights: str = "student"  # or teacher: whose weights were measured

    def __post_init__(self) -> None:
        for name in _ERRORS:
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is below 0")


def readings(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Reading]]:
    """Yield every metric in nested mappings: each mapping with a numeric ``value``, and its path, ``a/b/c``.

    Raises:
        UserError: a metric has a field of another type.
    """
    for name, inner in node.items():
        where = f"{prefix}{name}"
        if not isinstance(inner, Mapping):
            continue
        if not is_metric(inner):
            yield from readings(inner, f"{where}/")
            continue
        entry = metric_up_to_date(name, inner)
        baselines = {key: v for key, v in entry.items() if key not in _NOT_BASELINES and is_number(v)}
        given: dict[str, Any] = {f.name: entry[f.name] for f in fields(Reading) if entry.get(f.name) is not None}
        yield where, read({**given, "baselines": baselines}, Reading, f"{where}.")


@dataclass(kw_only=True)
class MetricFile(JsonFile):
    """What ``result.json`` and ``eval.json`` have in common."""

    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for _ in readings(self.metrics):  # which checks each
            pass
