"""What came of the jobs of a sweep: read from their folders, and averaged over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sslcli.config.arguments import key_of
from sslcli.report.differences import incomparable
from sslcli.run_dir.layout import is_run
from sslcli.run_dir.lock import is_held
from sslcli.run_dir.measurements import gain
from sslcli.run_dir.outcome import OK, RUNNING, read_outcome
from sslcli.run_dir.readings import Reading
from sslcli.run_dir.records import Record, read_run
from sslcli.sweeps import sweep_json

SEED = "seed"
BEST, AMONG_THE_BEST = "best", "among the best"
# Student's t, two-sided at 95 %, for 1 to 9 degrees of freedom; the last one is used for more, too.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


@dataclass(frozen=True)
class JobResult:
    """One job: its number, its overrides, how it ended, and its run if it has one."""

    number: int
    overrides: Mapping[str, str]  # what tells it from other jobs: key -> value as it was given
    texts: Sequence[str]  # all its overrides as they were given
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

    ``reading`` has the standard error over the seeds; of a single seed, that of its measurement. ``behind`` is the
    difference to the best setting, with its standard error.
    """

    jobs: Sequence[JobResult]
    metric: str
    reading: Reading | None
    mark: str = ""  # BEST or AMONG_THE_BEST
    behind: str = ""

    @property
    def by_seed(self) -> dict[str, float]:
        """The headlines of the jobs by their seeds."""
        return {job.overrides.get(SEED, ""): job.headline[1].value for job in self.jobs if job.headline is not None}


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
    def protocols(self) -> list[str]:
        """The protocols by which the headlines were measured, each once."""
        return list(dict.fromkeys(job.headline[1].protocol for job in self.jobs if job.headline is not None))

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
    jobs = [_job(sweep_dir, job["job"], job["same"], job["overrides"]) for job in content["jobs"]]
    groups: dict[tuple[tuple[str, str], ...], list[JobResult]] = {}
    for job in jobs:
        groups.setdefault(tuple((k, v) for k, v in job.overrides.items() if k != SEED), []).append(job)
    settings = [_averaged(group) for group in groups.values()]
    unranked = _unranked(jobs)
    return SweepResult(sweep_dir, settings if unranked else _ranked(settings), unranked)


def _job(sweep_dir: Path, number: int, same: Sequence[str], overrides: Sequence[str]) -> JobResult:
    folder = sweep_dir / str(number)
    outcome = read_outcome(folder)
    by_key = {key_of(text): text.partition("=")[2] for text in same}
    run = read_run(folder) if is_run(folder) else None
    ended, message = ("not started", "") if outcome is None else (outcome.outcome, outcome.message)
    if ended == RUNNING and not is_held(folder):
        ended = "killed"
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
    """Return the settings with the best first and those without a number last, each compared with the best."""
    found = [setting for setting in settings if setting.reading is not None]
    if len(found) < 2:
        return [*found, *(setting for setting in settings if setting.reading is None)]
    sign = 1 if found[0].reading and found[0].reading.higher_is_better else -1
    found.sort(key=lambda setting: sign * setting.reading.value if setting.reading else 0.0, reverse=True)
    top = found[0]
    compared = [_compared(top, setting, sign) for setting in found[1:]]
    mark = AMONG_THE_BEST if any(setting.mark for setting in compared) else BEST
    return [replace(top, mark=mark), *compared, *(setting for setting in settings if setting.reading is None)]


def _compared(top: Setting, setting: Setting, sign: int) -> Setting:
    """Return the setting with its difference to the best one, and a mark if the two cannot be told apart.

    If both have the same seeds they are compared seed by seed: the initial weights and the order of the samples of a
    seed are the same in both. The interval is Student's at 95 %, which is wide for two or three seeds. Otherwise it is
    two standard errors of the difference of independent numbers.
    """
    assert top.reading is not None and setting.reading is not None
    ours, theirs = setting.by_seed, top.by_seed
    if len(ours) > 1 and ours.keys() == theirs.keys():
        differences = [theirs[seed] - ours[seed] for seed in ours]
        error = statistics.stdev(differences) / len(ours) ** 0.5
        width = _STUDENT[min(len(ours) - 2, len(_STUDENT) - 1)] * error
    else:
        error = math.hypot(top.reading.standard_error or 0, setting.reading.standard_error or 0)
        width = 2 * error
    against = replace(setting.reading, baselines={"best": top.reading.value}, gain_standard_error=error)
    is_level = sign * (top.reading.value - setting.reading.value) <= width
    return replace(setting, mark=AMONG_THE_BEST if is_level else "", behind=gain(against, "best"))
