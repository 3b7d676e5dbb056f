"""A launcher around another one: each job gets the folder of its overrides, and a finished job is not run again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from sslcli.run_dir.outcome import OK, read_outcome
from sslcli.run_dir.result_json import headline_value, read_result
from sslcli.sweeps.sweep_json import numbers


class Numbered:
    """Hydra's launchers number jobs from 0 at each start; here a job has the same number at every start of the sweep.

    Args:
        launcher: starts the jobs.
        sweep_dir: the folder of the sweep.
        swept: the keys over which the sweep goes.
    """

    def __init__(self, launcher: Launcher, sweep_dir: Path, swept: Collection[str]) -> None:
        self.launcher, self.sweep_dir, self.swept = launcher, sweep_dir, swept
        self.folders: list[Path] = []  # of the jobs of the last launch, in their order

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the jobs that are not finished; return what all of them return, in their order.

        Args:
            job_overrides: the overrides of each job.
            initial_job_idx: how many jobs were launched before, for the launcher.
        """
        found = numbers(self.sweep_dir, job_overrides, self.swept)
        self.folders = [self.sweep_dir / str(numbering.number) for numbering in found]
        returned: list[JobReturn | None] = []
        waiting: list[list[str]] = []
        for overrides, numbering, folder in zip(job_overrides, found, self.folders):
            finished = _finished(folder, overrides) if numbering.is_known else None
            if finished is None:
                waiting.append([*overrides, f"hydra.sweep.subdir={numbering.number}"])
            else:
                print(f"job {numbering.number} finished already", flush=True)
            returned.append(finished)
        ran = iter(self.launcher.launch(waiting, initial_job_idx) if waiting else ())
        return [next(ran) if job is None else job for job in returned]


def _finished(folder: Path, overrides: Sequence[str]) -> JobReturn | None:
    """Return what a finished job returned; None if it is not finished."""
    outcome, result = read_outcome(folder), read_result(folder)
    if outcome is None or outcome.outcome != OK or result is None:
        return None
    done = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    done.return_value = headline_value(result)
    return done
