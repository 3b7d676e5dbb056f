"""``eval.json``: the results of all evaluations of a run, by dataset and metric."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcli.config.choices import DatasetChoice
from sslcli.config.secrets import hidden
from sslcli.config.upgrade import up_to_date
from sslcli.run_dir import checkpoint, inside
from sslcli.run_dir.console import Console
from sslcli.run_dir.json_files import loads, side_file
from sslcli.run_dir.lock import EVALUATION, in_turn
from sslcli.run_dir.readings import MetricFile, readings
from sslcli.run_dir.result_json import read_result

Json = dict[str, Any]
NAME = "eval.json"


@dataclass(kw_only=True)
class Evaluations(MetricFile):
    """The schema of the file."""

    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def up_to_date(cls, found: Json) -> Json:
        if "metrics" in found:
            return found
        return {"metrics": {name: inner for name, inner in found.items() if isinstance(inner, Mapping)}}

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_groups(self.metrics, "metrics")


def _check_groups(group: Mapping[str, Any], where: str) -> None:
    """Raise ValueError if a group holds something else than metrics and groups."""
    for name, inner in group.items():
        if not isinstance(inner, Mapping):
            raise ValueError(f"{where}.{name} is neither a metric nor a group of metrics")
        if "value" not in inner:
            _check_groups(inner, f"{where}.{name}")


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
        found = _read_to_write(run_dir)
        here = found.setdefault("metrics", {})
        if not newest:
            here = here.setdefault(checkpoint.path_of(run_dir, step).stem, {})
        if dataset is not None:
            name = dataset_name(dataset, found.get("datasets", {}))
            found.setdefault("datasets", {})[name] = hidden(dataset.node)
            here = here.setdefault(name, {})
        if weights != "student":
            here = here.setdefault(weights, {})
        for metric_name, metric in metrics.items():
            here[metric_name] = {**metric, "step": step, "weights": weights}
        inside.write_text(run_dir, NAME, json.dumps({**found, "step": step}, indent=2) + "\n")


def is_newest(run_dir: Path, step: int) -> bool:
    """Whether the run has no checkpoint that is newer than that of ``step``."""
    return all(checkpoint.step_of(path) <= step for path in checkpoint.steps(run_dir))


def settled_size(run_dir: Path, dataset: DatasetChoice | None) -> int | None:
    """Return the sample count of an earlier evaluation with ``probe.max_samples=auto``, which chose it by time.

    Using the same count again makes results reproducible. None if there was no such evaluation.
    """
    evaluated = read_evaluations(run_dir)
    metrics = evaluated["metrics"]
    sections = [metrics, *(inner for name, inner in metrics.items() if name.startswith("step-"))]
    if dataset is None:
        sections.insert(0, (read_result(run_dir) or {}).get("metrics", {}))
    else:
        name = dataset_name(dataset, evaluated.get("datasets", {}))
        sections = [section.get(name, {}) for section in sections]
    own = [{name: reading for name, reading in readings(section) if "/" not in name} for section in sections]
    sizes = [reading.samples for section in own for reading in section.values() if reading.samples is not None]
    return sizes[0] if sizes else None


def read_evaluations(run_dir: Path) -> Json:
    """Return the content of the file; without metrics if there is none, or, after a warning, if it is damaged."""
    return side_file(run_dir, NAME, Evaluations) or {"metrics": {}}


def dataset_name(dataset: DatasetChoice, known: Mapping[str, Any]) -> str:
    """Return the name of the dataset's function with eight digits of a hash of its settings: ``images-3fa2b1c0``.

    Settings that are among ``known`` (settings by name) keep that name, because an earlier version may have computed
    a different hash.
    """
    node = hidden(dataset.node)
    for name, settings in known.items():
        if isinstance(settings, Mapping) and hidden(up_to_date({"dataset": settings})["dataset"]) == node:
            return name
    digest = hashlib.sha256(json.dumps(node, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{str(dataset.node['_target_']).rpartition('.')[2]}-{digest}"


def _read_to_write(run_dir: Path) -> Json:
    """Return the content of the file. A damaged one is given another name, so that nothing in it is overwritten."""
    content = inside.read(run_dir, NAME)
    try:
        return {"metrics": {}} if content is None else loads(content, Evaluations)
    except ValueError as error:
        names = (f"eval.damaged-{number}.json" for number in itertools.count(1))
        aside = next(name for name in names if name not in inside.names(run_dir))
        inside.move(run_dir, NAME, aside)
        Console().warn(f"{run_dir / NAME} is damaged ({error}). It is {aside} now, and a new one is written.")
        return {"metrics": {}}
