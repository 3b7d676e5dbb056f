"""``result.json``: the metrics of a finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.run_dir.files import write_text

NAME = "result.json"


def write_result(
    run_dir: Path,
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    quality: Mapping[str, float],
    steps: int,
    seconds: float,
    seed: int,
    uses_labels: bool,
) -> None:
    """Write ``result.json``, which also marks the run as finished."""
    result = {
        "metrics": dict(metrics),
        "quality": dict(quality),
        "steps": steps,
        "seconds": round(seconds, 2),
        "seed": seed,
        "uses_labels": uses_labels,
    }
    write_text(run_dir / NAME, json.dumps(result, indent=2) + "\n")


def finished(run_dir: Path, step: int) -> dict[str, Any] | None:
    """Return the result of a run that finished at ``step``; None if it did not."""
    path = run_dir / NAME
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    return result if result.get("steps") == step else None


def headline(values: Mapping[str, float]) -> float | None:
    """Return the value by which the runs of a sweep are compared."""
    return values.get("knn_top1", values.get("held_out_loss"))
