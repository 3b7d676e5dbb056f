"""``eval.json``: every evaluation of a run, by what was measured on which data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.config.choices import DatasetChoice
from sslcli.config.upgrade import up_to_date
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint
from sslcli.run_dir.files import write_text
from sslcli.run_dir.lock import in_turn

Json = dict[str, Any]


def add_metrics(
    run_dir: Path,
    metrics: Mapping[str, Json],
    *,
    step: int,
    dataset: DatasetChoice | None,
    newest: bool = True,
) -> None:
    """Put the metrics of ``step`` into ``eval.json``; what else stands there stays.

    Metrics of the run's own data stand under ``metrics`` by their name, those of other data under
    ``metrics/<dataset>``, whose config is under ``datasets``. What was measured at another checkpoint than the newest
    takes no place of theirs: it stands in the same way under ``metrics/step-00001234``.

    Args:
        run_dir: the run's.
        metrics: by name, each as it is to stand there.
        step: of the checkpoint.
        dataset: the other data; null for the run's own.
        newest: whether no checkpoint was newer when this one was opened.
    """
    with in_turn(run_dir / "eval.lock"):
        found = _read(run_dir / "eval.json")
        here = found.setdefault("metrics", {})
        if not newest:
            here = here.setdefault(checkpoint.path_of(run_dir, step).stem, {})
        if dataset is not None:
            name = dataset_name(dataset, found.get("datasets", {}))
            found.setdefault("datasets", {})[name] = dataset.node
            here = here.setdefault(name, {})
        for title, metric in metrics.items():
            here[title] = {**metric, "step": step}
        write_text(run_dir / "eval.json", json.dumps({**found, "step": step}, indent=2) + "\n")


def is_newest(run_dir: Path, step: int) -> bool:
    """Whether a run has no newer checkpoint than that of ``step``."""
    return all(checkpoint.step_of(path) <= step for path in checkpoint.steps(run_dir))


def settled_size(run_dir: Path, dataset: DatasetChoice | None) -> int | None:
    """The number of samples that a probe left to the clock settled on before, so that its numbers come again."""
    evaluated = _read(run_dir / "eval.json")
    metrics = evaluated.get("metrics", {})
    places = [metrics, *(inner for name, inner in metrics.items() if name.startswith("step-"))]
    if dataset is None:
        places.insert(0, _read(run_dir / "result.json").get("metrics", {}))
    else:
        name = dataset_name(dataset, evaluated.get("datasets", {}))
        places = [place.get(name, {}) for place in places]
    sizes = [metric["samples"] for place in places for metric in place.values() if "samples" in metric]
    return sizes[0] if sizes else None


def dataset_name(dataset: DatasetChoice, known: Mapping[str, Any]) -> str:
    """The dataset's function and eight digits of its settings, such as ``images-3fa2b1c0``.

    What stands among the ``known`` settings, by their names, keeps its name: an earlier version's digits may differ.
    """
    for name, settings in known.items():
        if isinstance(settings, Mapping) and up_to_date({"dataset": settings})["dataset"] == dataset.node:
            return name
    digest = hashlib.sha256(json.dumps(dataset.node, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{str(dataset.node['_target_']).rpartition('.')[2]}-{digest}"


def _read(path: Path) -> Json:
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"run: {path} cannot be read ({error}). Move it away.") from None
    if not isinstance(found, dict) or not isinstance(found.get("metrics", {}), dict):
        raise UserError(f"run: {path} does not hold metrics. Move it away.")
    return found
