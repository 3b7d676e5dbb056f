"""``hydra/launcher=parallel``: the jobs of a sweep side by side on this host, a process each."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from sslcli import signals
from sslcli.errors import UserError
from sslcli.run_dir.outcome import STOPPED, Outcome, read_outcome
from sslcli.run_dir.owner import SWEEP
from sslcli.sweeps.job_folder import job_config, job_folder
from sslcli.sweeps.job_process import JobProcess
from sslcli.sweeps.shares import VISIBLE, Host, Share, Wish, visible_gpus

_SHARED = ("torch", "torch._dynamo")  # what all jobs import: a torch optimizer needs the second one
_PAUSE = 0.02  # seconds between two looks at the jobs


@dataclass
class _Job:
    """A job that has been started: its process, its share of the host, and its folder.

    ``before`` is the outcome that stood in the folder, of an earlier start of the sweep.
    """

    config: DictConfig
    process: JobProcess
    share: Share
    folder: Path
    before: Outcome | None


class ParallelLauncher(Launcher):
    """Forks a process for each job, at most ``n`` at once.

    The process of the sweep imports torch, once for all jobs, as that takes seconds. It computes nothing: threads of
    OpenMP and a connection to a GPU, which a fork would break, exist in the jobs only.

    Args:
        n: jobs at once; None for one for each GPU, or without GPUs one for each CPU.
    """

    def __init__(self, n: Any = None) -> None:
        self.n = n

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands to every launcher.

        Raises:
            UserError: ``n`` is not a number of jobs.
        """
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        if self.n is not None and (not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1):
            raise UserError(f"hydra.launcher.n: '{self.n}' is not a number of jobs at once: 1 or more, or null.")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the jobs; return what they return, in their order.

        Raises:
            Stopped: a signal came, and jobs have stopped on it or were not started.
        """
        if not job_overrides:
            return []
        setup_globals()
        for module in _SHARED:
            importlib.import_module(module)
        host = Host(_gpus(), self.n, len(job_overrides))
        numbered = enumerate(job_overrides, initial_job_idx)
        configs = (job_config(self.hydra_context, self.config, overrides, number) for number, overrides in numbered)
        jobs: list[_Job] = []
        running: list[_Job] = []
        with _recorded() as received:
            passed_on = 0
            try:
                waiting = next(configs, None)
                while running or (waiting is not None and not received):
                    new = received[passed_on:]
                    passed_on += len(new)
                    _pass_on(new, running)
                    share = None if waiting is None or received else host.take(Wish.of(waiting))
                    if waiting is not None and share is not None:
                        running.append(self._start(waiting, share))
                        jobs.append(running[-1])
                        waiting = next(configs, None)
                    ended = [job for job in running if job.process.poll() is not None]
                    for job in ended:
                        running.remove(job)
                        host.give_back(job.share)
                        _tell_killed(job)
                    if share is None and not ended:
                        time.sleep(_PAUSE)
            finally:  # none runs, unless an error ended this
                for job in running:
                    job.process.send_signal(signal.SIGTERM)
                for job in running:
                    job.process.wait()
        if received:
            _stop(received[0], jobs, len(job_overrides))
        return [_returned(job) for job in jobs]

    def _start(self, config: DictConfig, share: Share) -> _Job:
        encoder = str(OmegaConf.select(config, "encoder._target_", throw_on_resolution_failure=False))
        with suppress(Exception):  # which the job tells
            if encoder.startswith("sslcli."):  # timm takes longer than torch
                importlib.import_module(encoder.rpartition(".")[0])
        run = functools.partial(_run, self.hydra_context, self.task_function, config)
        folder = job_folder(config.hydra)
        before = _outcome(folder)
        process = JobProcess(run, {**share.environment, SWEEP: str(os.getpid())})
        return _Job(config, process, share, folder, before)


def _run(context: HydraContext, task: TaskFunction, config: DictConfig) -> Any:
    """Return what the task of a job returns."""
    done = run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    if done.status == JobStatus.FAILED:  # ``return_value`` would print a line of Hydra's
        raise done._return_value
    return done.return_value


def _gpus() -> list[str]:
    """Return the names of the GPUs of this host, which a process of its own counts: that may start CUDA."""
    if VISIBLE in os.environ:
        return visible_gpus(os.environ, 0)
    counting = JobProcess(importlib.import_module("torch").cuda.device_count, {})
    counting.wait()
    return visible_gpus(os.environ, int(counting.returned or 0))


@contextmanager
def _recorded() -> Iterator[list[int]]:
    """Record signals inside this block; yield the list of those that came.

    A handler that passed them on would miss a job that is being started.
    """
    received: list[int] = []

    def record(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)

    with signals.handled_by(record):  # ``_pass_on`` answers
        yield received


def _pass_on(received: Sequence[int], running: Sequence[_Job]) -> None:
    for signum in received:
        for job in running:
            job.process.send_signal(signum)
        what = f"{len(running)} jobs stop after their step, which is saved; Ctrl-C twice exits at once"
        _say(f"{signal.Signals(signum).name}: {what}", "\n" * os.isatty(2))


def _tell_killed(job: _Job) -> None:
    code = job.process.returncode or 0
    if code < 0:
        cause = ", as the kernel does where memory is full" * (-code == signal.SIGKILL)
        name = signal.Signals(-code).name
        _say(f"job {job.folder.name} (pid {job.process.pid}) was killed by {name}{cause}")


def _say(text: str, before: str = "") -> None:
    program = os.path.basename(sys.argv[0] or "ssl-train")  # noqa: PTH119
    print(f"{before}{program}: {text}", file=sys.stderr, flush=True)


def _stop(signum: int, jobs: Sequence[_Job], num_jobs: int) -> None:
    """Raise Stopped, unless all jobs were done before the signal reached them."""
    stopped = sum(_has_stopped(job) for job in jobs)
    left = num_jobs - len(jobs)
    if stopped or left:
        stop = signals.Stopped(signum)
        stop.saved = f"stopped by {stop.name}: of {num_jobs} jobs {stopped} stopped, {left} not started"
        raise stop


def _outcome(folder: Path) -> Outcome | None:
    try:
        return read_outcome(folder)
    except UserError:  # which the job tells
        return None


def _has_stopped(job: _Job) -> bool:
    """Whether a job wrote that it stopped, or left before it began, or at a second Ctrl-C."""
    outcome = _outcome(job.folder)
    return job.process.returncode in (75, 130) or (outcome is not None and outcome.outcome == STOPPED)


def _returned(job: _Job) -> JobReturn:
    """Return what a job returned, None if it failed, which its outcome tells; or an error, if nothing else tells it."""
    done = JobReturn(overrides=list(job.config.hydra.overrides.task), status=JobStatus.COMPLETED)
    done.return_value = job.process.returned
    if job.process.error or (job.process.returncode and _outcome(job.folder) == job.before):
        done.status = JobStatus.FAILED
        done.return_value = UserError(f"{job.folder}: {job.process.error or 'the job was killed before it began'}")
    return done
