"""Reads a run directory: config, curves, results, evaluations, corrupt samples, log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sslcli.config.choices import part_name
from sslcli.config.identity import flatten
from sslcli.errors import UserError
from sslcli.run_dir import inside
from sslcli.run_dir.console import WARNING
from sslcli.run_dir.eval_json import NAME as EVALUATIONS
from sslcli.run_dir.eval_json import read_evaluations
from sslcli.run_dir.layout import is_run, read_config
from sslcli.run_dir.metrics_jsonl import read_lines
from sslcli.run_dir.readings import Reading, readings
from sslcli.run_dir.result_json import NAME as RESULT
from sslcli.run_dir.result_json import read_result

Line = dict[str, Any]  # of metrics.jsonl

_FACT = re.compile(r"^(data|encoder|objective|training) +(.+(?:\n {10}.+)*)$", re.MULTILINE)


@dataclass(frozen=True)
class Record:
    """The content of one run directory."""

    path: Path
    settings: Mapping[str, Any]  # the values of config.yaml by their dotted keys
    config_text: str
    lines: list[Line]
    result: Mapping[str, Any] | None  # None: the run is not finished
    metrics: Mapping[str, Reading]  # of result.json
    evaluations: Mapping[str, Reading]  # of eval.json, by the path of keys to each metric
    bad_samples: list[str]
    log: str
    facts: Mapping[str, str]  # lines that the run printed at its start: data, encoder, objective, training

    @property
    def warnings(self) -> list[str]:
        """The warnings in the log, each once, in the order in which they came."""
        lines = [line.removeprefix(WARNING) for line in self.log.splitlines() if line.startswith(WARNING)]
        return list(dict.fromkeys(lines))

    @property
    def headline(self) -> str | None:
        """The name of the metric by which sweeps compare runs; None if there is none."""
        name = (self.result or {}).get("headline")
        return name if name in self.metrics else None

    def choice(self, group: str) -> str:
        """Return the name of the part chosen in a group: the timm model, else the class or function."""
        return choice(self.settings, group)

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Return steps and values of one key of ``metrics.jsonl``, from the lines that have it."""
        found = [(line["step"], line[name]) for line in self.lines if isinstance(line.get(name), (int, float))]
        return [step for step, _ in found], [value for _, value in found]


def read_run(path: Path) -> Record:
    """Read a run directory, whether the run is finished or not.

    Raises:
        UserError: it is not a run directory.
    """
    if not is_run(path):
        raise UserError(f"run: there is no run in {path}: it has no config.yaml.")
    config = read_config(path)
    result = read_result(path)
    log = _text(path, "train.log")
    return Record(
        path=path,
        settings=flatten(config),
        config_text=OmegaConf.to_yaml(OmegaConf.create(config)),
        lines=list(read_lines(path)),
        result=result,
        metrics=dict(readings((result or {}).get("metrics", {}))),
        evaluations=dict(readings(read_evaluations(path)["metrics"])),
        bad_samples=_text(path, "bad_samples.txt").splitlines(),
        log=log,
        facts={name: re.sub(r"\n +", " ", text) for name, text in _FACT.findall(log)},
    )


def choice(settings: Mapping[str, Any], group: str) -> str:
    """Return the name of the part chosen in a group; empty if none was chosen."""
    return part_name({key: settings.get(f"{group}.{key}") for key in ("name", "_target_")})


def runs_in(path: Path) -> list[Path]:
    """Return the run directories in a folder, such as a sweep's, sorted by number, then by name."""
    found = [child for child in path.iterdir() if is_run(child)]
    return sorted(found, key=lambda p: (not p.name.isdecimal(), int(p.name) if p.name.isdecimal() else 0, p.name))


def measured_at(run_dir: Path, step: int, weights: str) -> Iterator[tuple[str, Reading, str]]:
    """Yield name, reading and file name of every metric of the student or the teacher of the checkpoint of ``step``."""
    result = read_result(run_dir) or {"metrics": {}, "steps": None}
    for file, found in ((RESULT, result), (EVALUATIONS, read_evaluations(run_dir))):
        for name, reading in readings(found["metrics"]):
            own = found.get("steps") if reading.step is None else reading.step  # eval.json: a step a metric
            if own == step and reading.weights == weights:
                yield name, reading, file


def _text(run_dir: Path, name: str) -> str:
    return (inside.read(run_dir, name) or b"").decode(errors="replace")
