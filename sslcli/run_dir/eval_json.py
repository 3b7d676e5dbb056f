"""``eval.json``: every evaluation of a run, by what was measured on which data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.config.sections import FeedSection
from sslcli.errors import UserError
from sslcli.evaluation.base import Metric
from sslcli.run_dir import checkpoint
from sslcli.run_dir.files import write_text
from sslcli.run_dir.lock import in_turn

Json = dict[str, Any]


def add_metrics(
    run_dir: Path,
    metrics: Mapping[str, Metric],
    *,
    step: int,
    dataset: Mapping[str, Any] | None,
    newest: bool = True,
) -> None:
    """Put the metrics of ``step`` into ``eval.json``; what else stands there stays.

    Metrics of the run's own data stand under ``metrics`` by their name, those of other data under
    ``metrics/<dataset>``, whose config is under ``datasets``. What was measured at another checkpoint than the newest
    takes no place of theirs: it stands in the same way under ``metrics/step-00001234``.

    Args:
        run_dir: the run's.
        metrics: by name.
        step: of the checkpoint.
        dataset: the other data's section; null for the run's own.
        newest: whether no checkpoint was newer when this one was opened.
    """
    with in_turn(run_dir / "eval.lock"):
        found = _read(run_dir / "eval.json")
        here = found.setdefault("metrics", {})
        if not newest:
            here = here.setdefault(checkpoint.path_of(run_dir, step).stem, {})
        if dataset is not None:
            name = dataset_name(dataset)
            found.setdefault("datasets", {})[name] = FeedSection.without(dataset)
            here = here.setdefault(name, {})
        for title, metric in metrics.items():
            here[title] = {**metric.to_json(), "step": step}
        write_text(run_dir / "eval.json", json.dumps({**found, "step": step}, indent=2) + "\n")


def is_newest(run_dir: Path, step: int) -> bool:
    """Whether a run has no newer checkpoint than that of ``step``."""
    return all(checkpoint.step_of(path) <= step for path in checkpoint.steps(run_dir))


def settled_size(run_dir: Path, dataset: Mapping[str, Any] | None) -> int | None:
    """The number of samples that a probe left to the clock settled on before, so that its numbers come again."""
    metrics = _read(run_dir / "eval.json").get("metrics", {})
    places = [metrics, *(inner for name, inner in metrics.items() if name.startswith("step-"))]
    if dataset is None:
        places.insert(0, _read(run_dir / "result.json").get("metrics", {}))
    else:
        places = [place.get(dataset_name(dataset), {}) for place in places]
    sizes = [metric["samples"] for place in places for metric in place.values() if "samples" in metric]
    return sizes[0] if sizes else None


def dataset_name(dataset: Mapping[str, Any]) -> str:
    """The dataset's function and eight digits of its settings, such as ``images-3fa2b1c0``."""
    settings = FeedSection.without(dataset)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{str(dataset['_target_']).rpartition('.')[2]}-{digest}"


def _read(path: Path) -> Json:
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"run: {path} cannot be read ({error}). Move it away.") from None
    if not isinstance(found, dict) or not isinstance(found.get("metrics", {}), dict):
        raise UserError(f"run: {path} does not hold metrics. Move it away.")
    return found
