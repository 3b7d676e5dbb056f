"""The table of a sweep in the terminal, and as ``sweep.csv``."""

from __future__ import annotations

import csv
import io
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sslcli.config.secrets import shown
from sslcli.run_dir import inside
from sslcli.run_dir.measurements import with_error
from sslcli.run_dir.outcome import OK
from sslcli.sweeps.results import AMONG_THE_BEST, BEST, SEED, JobResult, Setting, SweepResult

CSV = "sweep.csv"
RESULT = "result"  # the heading where jobs have different headlines
_PROTOCOLS = 3  # that are named; sweeps have one, unless the probe was changed
_MOST = 40  # settings in the terminal; sweep.csv has all


def table(sweep: SweepResult) -> list[str]:
    """Return the lines of the table: a setting a line, the best first, its number averaged over seeds."""
    counts = Counter(job.outcome for job in sweep.jobs)
    ended = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    lines = [f"{sweep.folder}: {_count(len(sweep.jobs), 'job')} ({ended})"]
    keys = [key for key in sweep.varied if key != SEED]
    metrics = {setting.metric for setting in sweep.settings if setting.metric}
    header = ["", *keys, metrics.pop() if len(metrics) == 1 else RESULT, "to the best", "seeds", "jobs", ""]
    rows = [_row(setting, keys, named=RESULT in header) for setting in sweep.settings[:_MOST]]
    lines += _aligned([header, *rows])
    if len(sweep.settings) > _MOST:
        lines.append(f"... and {len(sweep.settings) - _MOST} more, in {sweep.folder / CSV}")
    if any(len(setting.jobs) > 1 for setting in sweep.settings):
        lines.append("± is the standard error of the mean over seeds; of one seed, that of its measurement")
    if any(setting.behind for setting in sweep.settings):
        lines.append("~ is what cannot be told from the best; those with the same seeds are compared in pairs (95 %)")
    lines += [f"measured by: {protocol}" for protocol in sweep.protocols[:_PROTOCOLS]]
    if sweep.unranked:
        lines.append(f"not ranked: {sweep.unranked}")
    command = best_command(sweep)
    return [*lines, f"{sweep.settings[0].mark}: {command}"] if command else lines


def _row(setting: Setting, keys: Sequence[str], *, named: bool) -> list[str]:
    done = [job for job in setting.jobs if job.headline is not None]
    value = "–" if setting.reading is None else f"{setting.metric} " * named + with_error(setting.reading)
    of = "" if len(done) == len(setting.jobs) else f" of {len(setting.jobs)}"
    numbers = ",".join(str(job.number) for job in setting.jobs)
    others = [f"job {job.number} {_ended(job)}" for job in setting.jobs if job.outcome != OK]
    mark = {BEST: "*", AMONG_THE_BEST: "~"}.get(setting.mark, "")
    given = setting.jobs[0].overrides
    cells = [value, setting.behind, f"{len(done)}{of}", numbers, "; ".join(others)]
    return [mark, *(given.get(key, "") for key in keys), *cells]


def _ended(job: JobResult) -> str:
    text = f"{job.outcome}: {job.message}" if job.message else job.outcome
    return text if len(text) <= 70 else f"{text[:67]}..."


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def best_command(sweep: SweepResult) -> str:
    """Return the command that trains with the best setting, to be pasted; an empty string if there is none.

    Of several seeds none is chosen by its result: the command leaves the seed out.
    """
    if not sweep.settings or not sweep.settings[0].mark:
        return ""
    jobs = sweep.settings[0].jobs
    texts = [text for text in jobs[0].texts if len(jobs) == 1 or not text.startswith(f"{SEED}=")]
    return shlex.join(["ssl-train", *texts])


def name_of(job: JobResult, sweep: SweepResult) -> str:
    """Return what a job is called among the others: its number, and the values in which they differ."""
    return " ".join([str(job.number), *(f"{key}={job.overrides.get(key, '')}" for key in sweep.varied)])


def write_results(sweep: SweepResult, content: dict[str, Any]) -> None:
    """Put what came of the jobs, and the best setting, into the content of ``sweep.json``."""
    by_number = {job.number: job for job in sweep.jobs}
    for entry in content["jobs"]:
        job = by_number.get(entry["job"])
        if job is not None:  # else another process has just added it
            name, reading = job.headline or (None, None)
            value, error = (None, None) if reading is None else (reading.value, reading.standard_error)
            entry |= {"outcome": job.outcome, "metric": name, "value": value, "standard_error": error}
    command = best_command(sweep)
    best = sweep.settings[0].jobs if command else ()
    content["best"] = {"jobs": [job.number for job in best], "command": command} if command else None


def write_csv(sweep: SweepResult) -> None:
    """Write ``sweep.csv``: a line a job, with its overrides, its headline, and how it ended."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = sweep.varied
    writer.writerow(["job", *keys, "outcome", "metric", "value", "standard_error", "seconds", "message"])
    for job in sweep.jobs:
        name, reading = job.headline or ("", None)
        numbers = ("", "") if reading is None else (reading.value, reading.standard_error)
        seconds = "" if job.run is None or job.run.result is None else job.run.result["seconds"]
        given = [job.overrides.get(key, "") for key in keys]
        writer.writerow([job.number, *given, job.outcome, name, *numbers, seconds, job.message])
    inside.write_text(sweep.folder, CSV, text.getvalue())
