"""A sweep's job that a signal has stopped goes back into the queue of the launcher that started it."""

from __future__ import annotations

import os
import signal
import subprocess

from sslcli import signals
from sslcli.run_dir.streams import leave


def put_back(signum: int) -> None:
    """Let the launcher answer the signal that stopped its job; it does not return if that starts the job again.

    Slurm sends SIGTERM both to a job that must make room, which no one starts again once it has ended in time, and to
    one that ``scancel`` ends, which has another state.
    """
    if signum == signal.SIGTERM and _is_running():
        signum = signal.SIGUSR2  # at which submitit starts a job again
    signals.ignore()  # Slurm sends more of them when the job goes back into the queue
    try:
        signals.hand_over(signum)
    except SystemExit as stop:
        leave(int(stop.code or 0) & 0xFF)


def _is_running() -> bool:
    """Whether this process is of a Slurm job that is to go on."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    array = os.environ.get("SLURM_ARRAY_JOB_ID")  # of which one of the jobs has the id as well
    name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    try:
        found = subprocess.run(["scontrol", "show", "job", "-o", name], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return False
    return "JobState=RUNNING" in found.stdout
