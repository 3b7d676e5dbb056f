"""``ssl-train``: build the parts, check that they fit, resume or start, train, measure, say what came out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

import sslcli
from sslcli.build import allow, build
from sslcli.config import (
    CheckpointSection,
    DeviceSection,
    TrainSection,
    differences,
    expand,
    section,
)
from sslcli.engine import checkpoint
from sslcli.engine.console import Console
from sslcli.engine.device import Compute, choose, set_determinism, set_threads
from sslcli.engine.files import write_text
from sslcli.engine.loader import Loader, default_workers
from sslcli.engine.lock import locked
from sslcli.engine.optim import parameter_groups
from sslcli.engine.schedule import Schedule
from sslcli.engine.trainer import Length, Trainer
from sslcli.errors import UserError
from sslcli.evaluate import Parts, budget, build_parts, dry_loss, measure, table
from sslcli.probes.base import Metric, Probe


def run(config: Mapping[str, Any], run_dir: Path) -> float | None:
    """Train as ``config`` says in ``run_dir``; the headline metric, for sweepers.

    Raises:
        UserError: anything that the user can put right.
        Stopped: a signal came and a checkpoint was written.
    """
    started = time.perf_counter()
    allow(config["plugins"])
    device: DeviceSection = section(config, "device", DeviceSection)
    train: TrainSection = section(config, "train", TrainSection)
    set_threads(device.threads)
    set_determinism(train.deterministic)
    compute = choose(device.name, train.precision)
    parts = build_parts(config)
    probe = build(config["probe"], Probe, where="probe")
    loader = _loader(config, parts, train, compute)
    length = _length(train, loader)
    _move(parts, compute)
    check_fit(parts, train, compute, config["seed"])
    with locked(run_dir):
        checkpoint.sweep_temporaries(run_dir)
        console = Console(run_dir / "train.log")
        state = _resumed_state(config, run_dir, console, length)
        trainer = _trainer(config, parts, loader, compute, length, run_dir, console)
        if state is None:
            write_config(run_dir, config)
            _announce(console, config, parts, loader, trainer, compute, run_dir)
        else:
            trainer.load_state_dict(state)
            if trainer.done and _finished(run_dir, trainer.step):
                return _say_finished(console, run_dir, config)
            _restore_environment(state, compute, device.threads, console)
            write_config(run_dir, config)
            console.line(f"resuming {run_dir} at step {trainer.step}")
        if not trainer.done:
            trainer.fit()
        metrics = measure(config, parts, compute, probe, budget=budget(trainer.seconds))
        return _report(console, run_dir, config, trainer, metrics, time.perf_counter() - started)


def check_fit(parts: Parts, train: TrainSection, compute: Compute, seed: int) -> None:
    """Refuse, before the first step, parts that cannot work together, by a dry pass over a few samples."""
    if parts.objective.couples_batch and train.batch_size < 2:
        raise UserError("train.batch_size: this objective compares samples with each other; give at least 2.")
    index = torch.arange(min(4, len(parts.dataset)))
    columns = {name: c.to(compute.device) for name, c in parts.dataset.fetch(index).items()}
    try:
        dry_loss(parts, columns, compute, seed=seed)
    except ValueError as error:
        raise UserError(f"objective: {error}") from error


def write_config(run_dir: Path, config: Mapping[str, Any]) -> None:
    """``config.yaml``, resolved."""
    from omegaconf import OmegaConf

    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(dict(config)))


def _loader(config: Mapping[str, Any], parts: Parts, train: TrainSection, compute: Compute) -> Loader:
    if train.batch_size > len(parts.dataset):
        raise UserError(
            f"train.batch_size={train.batch_size} is more than the {len(parts.dataset)} training samples. "
            f"Give at most {len(parts.dataset)}."
        )
    workers = config["dataset"].get("workers")
    if workers is not None and (not isinstance(workers, int) or workers < 0):
        raise UserError(f"dataset.workers={workers!r} must be a whole number, 0 or more, or null.")
    return Loader(
        parts.dataset,
        batch_size=train.batch_size,
        accumulate=train.accumulate,
        seed=config["seed"],
        workers=default_workers(parts.dataset) if workers is None else workers,
        pin=compute.device.type == "cuda",
    )


def _length(train: TrainSection, loader: Loader) -> Length:
    if train.epochs is not None:
        return Length(max(1, round(train.epochs * loader.steps_per_epoch)), None)
    return Length(train.steps, train.minutes)


def _move(parts: Parts, compute: Compute) -> None:
    """Parts to the device, convolutions in the layout that they are fastest in."""
    for module in (parts.encoder, parts.objective, parts.views):
        module.to(compute.device)
    parts.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _trainer(
    config: Mapping[str, Any],
    parts: Parts,
    loader: Loader,
    compute: Compute,
    length: Length,
    run_dir: Path,
    console: Console,
) -> Trainer:
    groups = parameter_groups([parts.encoder, parts.objective])
    return Trainer(
        encoder=parts.encoder,
        objective=parts.objective,
        views=parts.views,
        loader=loader,
        optimizer=build(config["optimizer"], Optimizer, groups, loader.batch_size, where="optimizer"),
        schedule=build(config["schedule"], Schedule, where="schedule"),
        compute=compute,
        length=length,
        seed=config["seed"],
        train=section(config, "train", TrainSection),
        checkpoints=section(config, "checkpoint", CheckpointSection),
        log_every=config["log"]["every"],
        run_dir=run_dir,
        console=console,
        identity={
            "version": sslcli.__version__,
            "config": {**config},
            "environment": _environment(compute),
        },
    )


def _environment(compute: Compute) -> dict[str, Any]:
    """What bit-exact resuming depends on, and where the run came from."""
    return {
        "torch": str(torch.__version__),  # a plain text, which weights_only=True can read
        "python": sys.version.split()[0],
        "device": compute.name,
        "precision": compute.precision,
        "threads": torch.get_num_threads(),
        "commit": _git_commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _git_commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _resumed_state(
    config: Mapping[str, Any], run_dir: Path, console: Console, length: Length
) -> dict[str, Any] | None:
    """The state to go on from, None to start afresh.

    Raises:
        UserError: the checkpoint belongs to another config, or the run is longer already.
    """
    resume = config["resume"]
    if resume == "never":
        _set_aside(run_dir, console)
        return None
    found = checkpoint.newest(run_dir, console.warn)
    if found is None and resume != "auto":
        from sslcli.evaluate import open_run

        found = (expand(resume), open_run(resume, "resume")[1])
    if found is None:
        _set_aside(run_dir, console)
        return None
    path, state = found
    refused, allowed = differences(state["config"], config)
    if refused:
        raise UserError(
            f"run_dir: {path} was trained with another config ({'; '.join(refused[:4])}). "
            "Use the same, or another run_dir=..., or start afresh with resume=never."
        )
    before = Length(**state["length"])
    if (before.steps is not None and length.steps is not None and length.steps < before.steps) or (
        before.minutes is not None and length.minutes is not None and length.minutes < before.minutes
    ):
        raise UserError(
            f"train: the run in {run_dir} is {before.steps or before.minutes} long and can only be made longer."
        )
    if allowed:
        console.line(f"changed since the checkpoint: {'; '.join(allowed)}")
    return state


def _restore_environment(state: Mapping[str, Any], compute: Compute, threads: int | None, console: Console) -> None:
    """Reuse the checkpoint's thread count unless the user gives one; warn of what makes the bits differ."""
    before = state["environment"]
    set_threads(threads or before["threads"])
    now = _environment(compute)
    for key in ("torch", "device", "precision", "threads"):
        if before[key] != now[key]:
            console.warn(f"{key} was {before[key]} and is {now[key]}: the run goes on, but not in the same bits.")


def _set_aside(run_dir: Path, console: Console) -> None:
    """Move what an earlier run left into ``previous/N``; nothing is deleted."""
    names = ("checkpoints", "metrics.jsonl", "result.json", "eval.json", "config.yaml", "train.log", "export")
    leftovers = [run_dir / name for name in names if (run_dir / name).exists()]
    if not leftovers:
        return
    number = 1
    while (run_dir / "previous" / str(number)).exists():
        number += 1
    target = run_dir / "previous" / str(number)
    target.mkdir(parents=True)
    for path in leftovers:
        path.rename(target / path.name)
    console.line(f"starting afresh; what was in {run_dir} is in {target} now")


def _announce(
    console: Console,
    config: Mapping[str, Any],
    parts: Parts,
    loader: Loader,
    trainer: Trainer,
    compute: Compute,
    run_dir: Path,
) -> None:
    weights = sum(p.numel() for p in parts.encoder.parameters())
    held_out = len(parts.dataset.held_out) if parts.dataset.held_out is not None else 0
    lr = trainer.optimizer.param_groups[0]["full_lr"]
    length = f"{trainer.length.steps} steps" if trainer.length.steps else f"{trainer.length.minutes} minutes"
    chance = parts.objective.chance(loader.batch_size)
    beside = f", loss at chance {chance:.4f}" if chance is not None else ""
    console.line(f"run_dir   {run_dir}")
    console.line(f"data      {len(parts.dataset):,} training samples, {held_out:,} held out, no labels in training")
    console.line(
        f"encoder   {config['encoder']['_target_'].rpartition('.')[2]}, {weights:,} parameters, "
        f"features of width {parts.encoder.dim}"
    )
    console.line(f"objective {config['objective']['_target_'].rpartition('.')[2]}{beside}")
    console.line(
        f"training  {length}, batch {loader.batch_size}, learning rate {lr:.3g}, "
        f"{compute.precision} on {compute.name}, {torch.get_num_threads()} threads"
    )


def _finished(run_dir: Path, step: int) -> bool:
    path = run_dir / "result.json"
    return path.is_file() and json.loads(path.read_text()).get("steps") == step


def _say_finished(console: Console, run_dir: Path, config: Mapping[str, Any]) -> float | None:
    result = json.loads((run_dir / "result.json").read_text())
    console.line(f"{run_dir} is finished ({result['steps']} steps).")
    console.line("Start it afresh: the same command with resume=never. Evaluate it: " + f"ssl-eval run={run_dir}")
    return _headline({name: m["value"] for name, m in result["metrics"].items()})


def _headline(values: Mapping[str, float]) -> float | None:
    return values.get("knn_top1", values.get("held_out_loss"))


def _report(
    console: Console,
    run_dir: Path,
    config: Mapping[str, Any],
    trainer: Trainer,
    metrics: dict[str, Metric],
    seconds: float,
) -> float | None:
    """Write ``result.json`` and say how good the encoder is and how to go on."""
    result = {
        "metrics": {name: metric.to_json() for name, metric in metrics.items()},
        "steps": trainer.step,
        "seconds": round(trainer.seconds, 2),
        "seed": config["seed"],
    }
    write_text(run_dir / "result.json", json.dumps(result, indent=2) + "\n")
    console.line()
    for text in table(metrics):
        console.line(text)
    console.line()
    console.line(f"trained {trainer.step} steps in {trainer.seconds:.0f} s; all of this command took {seconds:.0f} s")
    console.line("next:")
    console.line(f"  ssl-eval run={run_dir}                    # the same numbers from the checkpoint")
    console.line(f'  python -c \'import sslcli; sslcli.load("{run_dir}")\'  # the encoder in Python')
    console.line(f"  ssl-export run={run_dir} format=safetensors")
    return _headline({name: metric.value for name, metric in metrics.items()})
