"""``eval.json``: the results of all evaluations of a run, by dataset and metric."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.config.choices import DatasetChoice
from sslcli.config.upgrade import up_to_date
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint, inside
from sslcli.run_dir.lock import EVALUATION, in_turn

Json = dict[str, Any]


def add_metrics(
    run_dir: Path,
    metrics: Mapping[str, Json],
    *,
    step: int,
    dataset: DatasetChoice | None,
    newest: bool = True,
    weights: str = "student",
) -> None:
    """Write the metrics of the checkpoint of ``step`` into ``eval.json``; other entries are kept.

    Metrics on the run's own dataset are written under ``metrics``, those on another dataset under
    ``metrics/<dataset>``, with the config of that dataset under ``datasets``. Metrics of a checkpoint that is not the
    newest are written in the same way under ``metrics/step-00001234`` and replace none of the newest checkpoint.
    Metrics of a teacher are one level deeper, under ``teacher``, and replace none of the student's.

    Args:
        run_dir: the run directory.
        metrics: the entry of each metric, by name.
        step: the step of the checkpoint.
        dataset: the other dataset; None for the run's own.
        newest: whether this checkpoint was the newest of the run when it was opened.
        weights: whose weights were measured, the student's or the teacher's; every entry says it.
    """
    with in_turn(run_dir, EVALUATION):
        found = _read(run_dir, "eval.json")
        here = found.setdefault("metrics", {})
        if not newest:
            here = here.setdefault(checkpoint.path_of(run_dir, step).stem, {})
        if dataset is not None:
            name = dataset_name(dataset, found.get("datasets", {}))
            found.setdefault("datasets", {})[name] = dataset.node
            here = here.setdefault(name, {})
        if weights != "student":
            here = here.setdefault(weights, {})
        for metric_name, metric in metrics.items():
            here[metric_name] = {**metric, "step": step, "weights": weights}
        inside.write_text(run_dir, "eval.json", json.dumps({**found, "step": step}, indent=2) + "\n")


def is_newest(run_dir: Path, step: int) -> bool:
    """Whether the run has no checkpoint that is newer than that of ``step``."""
    return all(checkpoint.step_of(path) <= step for path in checkpoint.steps(run_dir))


def settled_size(run_dir: Path, dataset: DatasetChoice | None) -> int | None:
    """Return the sample count of an earlier evaluation with ``probe.max_samples=auto``, which chose it by time.

    Using the same count again makes results reproducible. None if there was no such evaluation.
    """
    evaluated = _read(run_dir, "eval.json")
    metrics = evaluated.get("metrics", {})
    sections = [metrics, *(inner for name, inner in metrics.items() if name.startswith("step-"))]
    if dataset is None:
        sections.insert(0, _read(run_dir, "result.json").get("metrics", {}))
    else:
        name = dataset_name(dataset, evaluated.get("datasets", {}))
        sections = [section.get(name, {}) for section in sections]
    sizes = [metric["samples"] for section in sections for metric in section.values() if "samples" in metric]
    return sizes[0] if sizes else None


def dataset_name(dataset: DatasetChoice, known: Mapping[str, Any]) -> str:
    """Return the name of the dataset's function with eight digits of a hash of its settings: ``images-3fa2b1c0``.

    Settings that are among ``known`` (settings by name) keep that name, because an earlier version may have computed
    a different hash.
    """
    for name, settings in known.items():
        if isinstance(settings, Mapping) and up_to_date({"dataset": settings})["dataset"] == dataset.node:
            return name
    digest = hashlib.sha256(json.dumps(dataset.node, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{str(dataset.node['_target_']).rpartition('.')[2]}-{digest}"


def _read(run_dir: Path, name: str) -> Json:
    path, content = run_dir / name, inside.read(run_dir, name)
    try:
        found = {} if content is None else json.loads(content)
    except ValueError as error:
        raise UserError(f"run: {path} cannot be read ({error}). Move it away.") from None
    if not isinstance(found, dict) or not isinstance(found.get("metrics", {}), dict):
        raise UserError(f"run: {path} does not hold metrics. Move it away.")
    return found
