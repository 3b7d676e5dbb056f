"""The environment that a run's exact results depend on, beyond its config: versions, device, threads, ranks."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from sslcli.config.secrets import hide
from sslcli.distributed.ranks import Ranks
from sslcli.run_dir.checkpoint import State
from sslcli.run_dir.console import Console
from sslcli.training.device import set_threads
from sslcli.types import Compute


def environment(compute: Compute, ranks: Ranks) -> dict[str, Any]:
    """Return the environment of this run, its commit and its command, as plain values that ``weights_only`` reads."""
    return {
        "torch": str(torch.__version__),
        "python": sys.version.split()[0],
        "device": compute.name,
        "precision": compute.precision,
        "threads": torch.get_num_threads(),
        "ranks": ranks.size,
        "commit": _git_commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *map(hide, sys.argv[1:])]),
    }


def restore_environment(state: State, compute: Compute, ranks: Ranks, threads: int | None, console: Console) -> None:
    """Use the checkpoint's number of threads unless the user sets one; warn of differences that change the results."""
    before = state["environment"]
    set_threads(threads or before["threads"])
    now = environment(compute, ranks)
    for key in ("torch", "device", "precision", "threads", "ranks"):
        if before[key] != now[key]:
            console.warn(f"{key} was {before[key]} and is {now[key]}: the run goes on, but not in the same bits.")


def _git_commit() -> str | None:
    here = Path(__file__).parent  # this package's commit, not that of the current directory
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
