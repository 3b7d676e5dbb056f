"""What came of the jobs of a sweep: read from their folders, and averaged over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sslcli.config.arguments import key_of
from sslcli.report.columns import best
from sslcli.report.differences import incomparable
from sslcli.run_dir.layout import is_run
from sslcli.run_dir.outcome import OK, read_outcome
from sslcli.run_dir.readings import Reading
from sslcli.run_dir.records import Record, read_run
from sslcli.sweeps import sweep_json

SEED = "seed"


@dataclass(frozen=True)
class JobResult:
    """One job: its number, its overrides by their keys, how it ended, and its run if it has one."""

    number: int
    overrides: Mapping[str, str]  # key -> value as it was given
    texts: Sequence[str]  # the overrides as they were given
    outcome: str
    message: str
    run: Record | None

    @property
    def headline(self) -> tuple[str, Reading] | None:
        """The name and the value of the metric by which runs are compared, of a job that has ended well."""
        if self.run is None or self.run.headline is None or self.outcome != OK:
            return None
        return self.run.headline, self.run.metrics[self.run.headline]


@dataclass(frozen=True)
class Setting:
    """The jobs that differ in nothing but their seed, and the mean of their headlines.

    ``reading`` has the standard error over the seeds; of a single seed, that of its measurement.
    """

    jobs: Sequence[JobResult]
    metric: str
    reading: Reading | None
    mark: str = ""  # whether it is the best of the sweep


@dataclass(frozen=True)
class SweepResult:
    """A sweep: its settings, the best first, and why they are not ranked, if they are not."""

    folder: Path
    settings: Sequence[Setting]
    unranked: str

    @property
    def jobs(self) -> list[JobResult]:
        """All jobs, by their numbers."""
        return sorted((job for setting in self.settings for job in setting.jobs), key=lambda job: job.number)

    @property
    def varied(self) -> list[str]:
        """The keys in which the jobs differ, the seed last."""
        keys = dict.fromkeys(key for job in self.jobs for key in job.overrides)
        found = [key for key in keys if len({job.overrides.get(key) for job in self.jobs}) > 1]
        return sorted(found, key=lambda key: key == SEED)


def read_sweep(sweep_dir: Path) -> SweepResult | None:
    """Return what came of a sweep so far; None if the folder has no ``sweep.json``.

    Raises:
        UserError: a file of a run cannot be read.
    """
    content = sweep_json.read(sweep_dir)
    if content is None:
        return None
    jobs = [_job(sweep_dir, job["job"], job["overrides"]) for job in content["jobs"]]
    groups: dict[tuple[str, ...], list[JobResult]] = {}
    for job in jobs:
        groups.setdefault(tuple(sorted(t for t in job.texts if key_of(t) != SEED)), []).append(job)
    settings = [_averaged(group) for group in groups.values()]
    unranked = _unranked(jobs)
    return SweepResult(sweep_dir, settings if unranked else _ranked(settings), unranked)


def _job(sweep_dir: Path, number: int, overrides: Sequence[str]) -> JobResult:
    folder = sweep_dir / str(number)
    outcome = read_outcome(folder)
    by_key = {key_of(text): text.partition("=")[2] for text in overrides}
    run = read_run(folder) if is_run(folder) else None
    ended, message = ("not started", "") if outcome is None else (outcome.outcome, outcome.message)
    return JobResult(number, by_key, overrides, ended, message, run)


def _averaged(jobs: Sequence[JobResult]) -> Setting:
    found = [job.headline for job in jobs if job.headline is not None]
    names = {name for name, _ in found}
    if len(names) != 1:  # none, or a sweep whose jobs measure different things
        return Setting(jobs, "", None)
    readings = [reading for _, reading in found]
    values = [reading.value for reading in readings]
    reading = readings[0]
    if len(values) > 1:
        error = statistics.stdev(values) / len(values) ** 0.5
        reading = replace(reading, value=statistics.fmean(values), standard_error=error, bias=None)
    return Setting(jobs, names.pop(), reading)


def _unranked(jobs: Sequence[JobResult]) -> str:
    """Return why the headlines of the jobs do not compare; an empty string if they do."""
    found = [(job.run, *job.headline) for job in jobs if job.run is not None and job.headline is not None]
    names = {name for _, name, _ in found}
    if len(names) > 1:
        return f"the jobs have different headlines: {', '.join(sorted(names))}"
    if any(reading.higher_is_better is None for *_, reading in found):
        return "neither direction of the headline is better"
    protocols = {reading.protocol for *_, reading in found}
    return incomparable(names.pop(), protocols, [run.settings for run, *_ in found]) if names else ""


def _ranked(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings with the best first and marked, those without a number last."""
    found = [setting.reading for setting in settings if setting.reading is not None]
    if not found:
        return list(settings)
    higher = bool(found[0].higher_is_better)
    marks = best([setting.reading for setting in settings], higher_is_better=higher)
    marked = [replace(setting, mark=mark) for setting, mark in zip(settings, marks)]
    sign = -1 if higher else 1
    return sorted(marked, key=lambda s: (s.reading is None, sign * s.reading.value if s.reading else 0.0))
