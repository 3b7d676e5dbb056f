"""Whether a run starts afresh or goes on, and from what."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sslcli.config.sections import differences, expand
from sslcli.distributed import Ranks
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint
from sslcli.run_dir.console import Console
from sslcli.training.device import Compute, set_threads
from sslcli.training.trainer import Length

State = dict[str, Any]


def open_run(path: str | None, key: str = "run") -> tuple[Path, State]:
    """The run directory and the newest whole checkpoint of a run, or the one checkpoint that ``path`` names.

    Raises:
        UserError: nothing there, or nothing whole; ``key`` is the config path that the message names.
    """
    if not path:
        raise UserError(f"{key} is needed: name a run directory, such as {key}=runs/infonce-...")
    place = expand(path)
    if is_pointer(place):
        place = place.with_name(place.read_text().strip())
    if place.is_file():
        folder = place.resolve().parent
        return folder.parent if folder.name == "checkpoints" else folder, checkpoint.load(place)
    found = checkpoint.newest(place, Console().warn) if place.is_dir() else None
    if found is None:
        raise UserError(f"{key}: there is no run with a checkpoint in {place}.")
    return place, found[1]


def is_pointer(path: Path) -> bool:
    """Whether it is one of the text files beside checkpoints, which name one of them."""
    return path.name in ("last", "best") and path.is_file()


def starts_afresh(config: Mapping[str, Any], run_dir: Path) -> bool:
    """Whether ``choose_start`` will find nothing to go on from; known before the parts are built."""
    return config["resume"] == "never" or (config["resume"] == "auto" and not checkpoint.steps(run_dir))


def choose_start(config: Mapping[str, Any], run_dir: Path, length: Length, data: str, console: Console) -> State | None:
    """The state to go on from, or None to start afresh; ``data`` is the dataset's fingerprint.

    Raises:
        UserError: the checkpoint belongs to another config or other data, or its run is longer already.
    """
    if config["resume"] == "never":
        return None
    found = checkpoint.newest(run_dir, console.warn)
    if found is None:
        if config["resume"] == "auto":
            return None
        found = open_run(config["resume"], "resume")
    elif config["resume"] != "auto":
        console.warn(f"{run_dir} has checkpoints of its own and goes on from them, not from {config['resume']}.")
    path, state = found
    refused, allowed = differences(state["config"], config)
    if refused:
        raise UserError(
            f"run_dir: {path} was trained with another config ({'; '.join(refused[:4])}). "
            "Use the same, or another run_dir=..., or start afresh with resume=never."
        )
    if state["data"] != data:
        raise UserError(
            f"dataset: {path} was trained on {state['data']}, and these are {data}. "
            "Restore the data, or start afresh with resume=never."
        )
    before = Length(**state["length"])
    shorter_steps = before.steps and length.steps and length.steps < before.steps
    done = before.minutes or state["seconds"] / 60
    shorter_minutes = length.minutes and length.minutes < done
    if shorter_steps or shorter_minutes:
        was = f"{before.steps} steps" if before.steps else f"{before.minutes} minutes"
        raise UserError(f"train: the run in {run_dir} is {was} long and can only be made longer.")
    if allowed:
        console.line(f"changed since the checkpoint: {'; '.join(allowed)}")
    return state


START = "start.safetensors"  # the encoder as encoder.weights made it, before its first step
_FILES = (
    "checkpoints",
    START,
    "metrics.jsonl",
    "metrics.csv",
    "result.json",
    "eval.json",
    "report.html",
    "config.yaml",
    "train.log",
    "bad_samples.txt",
    "export",
    "tensorboard",
    "wandb",
    "mlflow",
    "mlflow.db",
)


def make_room(run_dir: Path, resume: str, console: Console) -> None:
    """Before a start from step 0: with ``resume=never``, move what an earlier run left into ``previous/N``.

    Nothing is deleted. What a run left that was killed before its first checkpoint is gone on from.

    Raises:
        UserError: the folder holds files of these names and was never a run's.
    """
    leftovers = [run_dir / name for name in _FILES if (run_dir / name).exists()]
    if leftovers and not (run_dir / "train.log").is_file():
        name = leftovers[0].name
        raise UserError(f"run_dir: {run_dir} holds {name} and no train.log, so it is not a run's. Give another.")
    if not leftovers or resume != "never":
        return
    number = 1
    while (run_dir / "previous" / str(number)).exists():
        number += 1
    target = run_dir / "previous" / str(number)
    target.mkdir(parents=True)
    for path in leftovers:
        path.rename(target / path.name)
    console.line(f"starting afresh; what was in {run_dir} is in {target} now")


def environment(compute: Compute, ranks: Ranks) -> dict[str, Any]:
    """What bit-exact resuming depends on, and where the run came from; plain values that weights_only reads."""
    return {
        "torch": str(torch.__version__),
        "python": sys.version.split()[0],
        "device": compute.name,
        "precision": compute.precision,
        "threads": torch.get_num_threads(),
        "ranks": ranks.size,
        "commit": _git_commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def restore_environment(state: State, compute: Compute, ranks: Ranks, threads: int | None, console: Console) -> None:
    """Reuse the checkpoint's thread count unless the user gives one; warn of what makes the bits differ."""
    before = state["environment"]
    set_threads(threads or before["threads"])
    now = environment(compute, ranks)
    for key in ("torch", "device", "precision", "threads", "ranks"):
        if before[key] != now[key]:
            console.warn(f"{key} was {before[key]} and is {now[key]}: the run goes on, but not in the same bits.")


def _git_commit() -> str | None:
    here = Path(__file__).parent  # this package's commit, not that of the folder the user stands in
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
