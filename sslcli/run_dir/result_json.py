"""``result.json``: the metrics of a finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli.run_dir import inside
from sslcli.run_dir.json_files import side_file
from sslcli.run_dir.measurements import with_error
from sslcli.run_dir.old_metrics import result_up_to_date
from sslcli.run_dir.readings import MetricFile, readings

NAME = "result.json"


def write_result(
    run_dir: Path,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    headline: str | None,
    steps: int,
    seconds: float,
    seed: int,
    uses_labels: bool,
) -> None:
    """Write ``result.json``, which also marks the run as finished."""
    result = {
        "metrics": dict(metrics),
        "headline": headline,
        "steps": steps,
        "seconds": round(seconds, 2),
        "seed": seed,
        "uses_labels": uses_labels,
    }
    inside.write_text(run_dir, NAME, json.dumps(result, indent=2) + "\n")


@dataclass(kw_only=True)
class Result(MetricFile):
    """The schema of the file."""

    steps: int
    seconds: float
    headline: str | None = None

    @classmethod
    def up_to_date(cls, found: dict[str, Any]) -> dict[str, Any]:
        return result_up_to_date(found)


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Return the content of a run's ``result.json`` as this version would write it; None if there is none."""
    return side_file(run_dir, NAME, Result)


def finished(run_dir: Path, step: int) -> dict[str, Any] | None:
    """Return the result of a run that finished at ``step``; None if it did not."""
    result = read_result(run_dir)
    return result if result is not None and result.get("steps") == step else None


def headline_value(result: Mapping[str, Any]) -> float | None:
    """Return the value by which the runs of a sweep are compared; None if nothing was measured."""
    found = dict(readings(result["metrics"])).get(result["headline"])
    return None if found is None else found.value


def result_line(run_dir: Path) -> str:
    """Return in a few words what a finished run measured: its headline and its seconds of training."""
    result = read_result(run_dir)
    if result is None:
        return "done"
    found = dict(readings(result["metrics"])).get(result["headline"])
    measured = "nothing was measured" if found is None else f"{result['headline']} {with_error(found)}"
    return f"{measured}, {result['seconds']:.0f} s of training"
