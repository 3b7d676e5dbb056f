"""``result.json``: the metrics of a finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.run_dir import inside
from sslcli.run_dir.old_metrics import result_up_to_date

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


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """Return the content of a run's ``result.json`` as this version would write it; None if there is none."""
    found = read_json(run_dir, NAME)
    return None if found is None else result_up_to_date(found)


def read_json(run_dir: Path, name: str) -> dict[str, Any] | None:
    """Return the mapping in a JSON file of a run; None if there is none that can be read."""
    try:
        found = json.loads(inside.read(run_dir, name) or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def finished(run_dir: Path, step: int) -> dict[str, Any] | None:
    """Return the result of a run that finished at ``step``; None if it did not."""
    result = read_result(run_dir)
    return result if result is not None and result.get("steps") == step else None


def headline_value(result: Mapping[str, Any]) -> float | None:
    """Return the value by which the runs of a sweep are compared; None if nothing was measured."""
    entry = result["metrics"].get(result["headline"])
    return None if entry is None else float(entry["value"])
