"""``ssl-train``: build the components, check that they fit, resume or start, train, measure, say what came out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.optim import Optimizer

import sslcli
from sslcli.commands.report import publish
from sslcli.commands.summary import announce, finished, say_finished, say_result, write_result
from sslcli.components import Components, build_components
from sslcli.config.instantiate import allow, build
from sslcli.config.sections import (
    CheckpointSection,
    DeviceSection,
    FeedSection,
    TrainSection,
    WatchSection,
    expand,
    section,
)
from sslcli.data.base import Dataset
from sslcli.data.dataloading import make_loader
from sslcli.data.loader import Loader
from sslcli.distributed import Ranks, joined
from sslcli.encoders.base import Encoder
from sslcli.encoders.batchnorm import batch_norms
from sslcli.errors import UserError, suggest
from sslcli.evaluation.base import Metric, Probe, flat
from sslcli.evaluation.collapse_monitor import CollapseMonitor
from sslcli.evaluation.measure import budget, dry_loss, embedder, measure
from sslcli.evaluation.online import RISING, OnlineEvaluation
from sslcli.loggers.base import Logger, Loggers
from sslcli.pretrained.safetensors_io import write_weights
from sslcli.report.collect import collect_visuals
from sslcli.report.preview import first_views, shows_pictures, write_preview
from sslcli.report.visuals import Visuals
from sslcli.run_dir import checkpoint
from sslcli.run_dir.console import Console
from sslcli.run_dir.files import write_text
from sslcli.run_dir.lock import locked
from sslcli.training.device import Compute, choose, set_determinism, set_threads
from sslcli.training.early_stopping import Watch
from sslcli.training.optim import parameter_groups
from sslcli.training.resume import (
    START,
    State,
    choose_start,
    environment,
    make_room,
    open_run,
    restore_environment,
    starts_afresh,
)
from sslcli.training.schedule import Schedule
from sslcli.training.trainer import Length, Trainer


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
    with ExitStack() as held:
        with joined(compute.device) as ranks:
            components = build_components(config, afresh=starts_afresh(config, run_dir))
            probe = build(WatchSection.without(config["probe"]), Probe, where="probe")
            console = Console(silent=not ranks.first)
            loggers = make_loggers(config, console, ranks)
            trainer = make_trainer(config, components, compute, run_dir, console, ranks, record=loggers.scalars)
            check_fit(components, train, compute, config["seed"], ranks)
            if config["preview"]:
                return ranks.by_first(lambda: _preview(config, components, compute, console))
            state = ranks.by_first(lambda: _claim(config, trainer, components.dataset.fingerprint(), held))
            if state is not None:
                trainer.load_state_dict(state)
                result = finished(run_dir, trainer.step) if trainer.done else None
                if result is not None:
                    return say_finished(console, run_dir, result)
                restore_environment(state, compute, ranks, device.threads, console)
                trainer.identity = _identity(config, components.dataset, compute, ranks)
            ranks.by_first(lambda: _open_records(config, components, trainer, loggers, afresh=state is None))
            held.callback(loggers.finish, {})  # of a run that is stopped; a finished one has done it before
            if not trainer.done:
                with enough_memory():
                    trainer.fit()
        if not ranks.first:
            return None
        with enough_memory():
            metrics = measure(config, components, compute, probe, budget=budget(trainer.seconds), start=run_dir / START)
            quality = (trainer.quality or make_collapse_monitor(config, components, compute, console))(
                components.encoder
            )
        write_result(config["seed"], trainer, metrics, quality)
        page = _show(config, components, compute, trainer, loggers, metrics)
        return say_result(console, trainer, metrics, page, time.perf_counter() - started)


def _preview(config: Mapping[str, Any], components: Components, compute: Compute, console: Console) -> None:
    """The picture that the user asked for in the place of training."""
    path = expand(config["preview"])
    write_preview(components, compute, path, seed=config["seed"])
    console.line(f"{path} shows what the model will see; nothing was trained")


def _claim(config: Mapping[str, Any], trainer: Trainer, data: str, held: ExitStack) -> State | None:
    """Take the run directory for as long as ``held`` is; what to go on from, or None to start afresh."""
    if config["resume"] not in ("auto", "never"):
        open_run(config["resume"], "resume")  # complain before anything is written
    held.enter_context(locked(trainer.run_dir))
    checkpoint.sweep_temporaries(trainer.run_dir)
    return choose_start(config, trainer.run_dir, trainer.length, data, trainer.console)


def _open_records(
    config: Mapping[str, Any], components: Components, trainer: Trainer, loggers: Loggers, *, afresh: bool
) -> None:
    """The log, the metrics and the config in the run directory, from here on, and what other loggers keep."""
    run_dir, console = trainer.run_dir, trainer.console
    if afresh:
        make_room(run_dir, config["resume"], console)
        trainer.lines.cut_back(0)
    console.log_to(run_dir / "train.log")
    if afresh:
        announce(console, config, components, trainer)
        (run_dir / START).unlink(missing_ok=True)  # of an earlier try that was lost before its first checkpoint
        if components.start is not None:
            console.line(f"start     {components.start}")
            write_weights(components.encoder, run_dir / START)
    else:
        console.line(f"resuming {run_dir} at step {trainer.step}")
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(dict(config)))
    loggers.each(lambda logger: logger.start(config, run_dir, trainer.step))
    if afresh and shows_pictures(components):
        loggers.show_views(0, lambda: first_views(components, trainer.compute, seed=config["seed"]))


def _show(
    config: Mapping[str, Any],
    components: Components,
    compute: Compute,
    trainer: Trainer,
    loggers: Loggers,
    metrics: Mapping[str, Metric],
) -> str:
    """Hand what the trained model can be shown by to the loggers and to the report; where the report is."""

    @functools.cache
    def look() -> Visuals:
        seconds = budget(trainer.seconds)
        return collect_visuals(config, components, compute, budget=seconds, thumbnails=loggers.take_pictures)

    loggers.show(trainer.step, look)
    loggers.finish(flat(metrics))
    if not config["log"]["report"]:
        return f"none: log.report=false; ssl-report run={trainer.run_dir} writes it"
    return publish(trainer.run_dir, trainer.identity, look, trainer.console)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Says in a line what to do where the device's memory does not suffice."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(
            "train.batch_size: the device ran out of memory. Raise train.accumulate, which keeps the gradient, "
            "or lower train.batch_size."
        ) from None


def make_trainer(
    config: Mapping[str, Any],
    components: Components,
    compute: Compute,
    run_dir: Path,
    console: Console,
    ranks: Ranks | None = None,
    *,
    record: Callable[[Mapping[str, Any]], None] = lambda line: None,
) -> Trainer:
    """A trainer at step 0, with the components on the device and convolutions in the layout they are fastest in."""
    train: TrainSection = section(config, "train", TrainSection)
    ranks = ranks or Ranks()
    loader = make_loader(config, components.dataset, components.views, compute, run_dir, console, ranks)
    for module in (components.encoder, components.objective, components.views):
        module.to(compute.device)
    for module in (components.encoder, components.objective):  # the objective may hold a copy of the encoder
        module.to(memory_format=torch.channels_last)
    groups = parameter_groups([components.encoder, components.objective])
    asked = config["log"]["quality"]
    return Trainer(
        encoder=components.encoder,
        objective=components.objective,
        views=components.views,
        loader=loader,
        optimizer=build(config["optimizer"], Optimizer, groups, loader.batch_size, where="optimizer"),
        schedule=build(config["schedule"], Schedule, where="schedule"),
        compute=compute,
        length=_length(train, loader),
        seed=config["seed"],
        train=train,
        checkpoints=section(config, "checkpoint", CheckpointSection),
        log_every=config["log"]["every"],
        run_dir=run_dir,
        console=console,
        identity=_identity(config, components.dataset, compute, ranks),
        ranks=ranks,
        quality=make_collapse_monitor(config, components, compute, console)
        if ranks.first and asked != "none"
        else None,
        record=record,
        watch=make_watch(config, components, compute, console),
    )


def make_loggers(config: Mapping[str, Any], console: Console, ranks: Ranks) -> Loggers:
    """The loggers of a run; the first process alone logs, and all complain of what is wrong with them."""
    made = {name: build(node, Logger, where=f"logger.{name}") for name, node in config["logger"].items()}
    return Loggers(made if ranks.first else {}, console.warn)


def make_watch(config: Mapping[str, Any], components: Components, compute: Compute, console: Console) -> Watch | None:
    """What looks at the run while it trains, if it is to be watched.

    Raises:
        UserError: ``checkpoint.keep_best`` is no metric, or one that these data do not have.
    """
    watch, metric = WatchSection.of(config["probe"]), config["checkpoint"]["keep_best"]
    if watch.every is None:
        return None
    workers = FeedSection.of(config["dataset"]).workers

    def embed(encoder: Encoder, dataset: Dataset, index: Tensor) -> Tensor:
        return embedder(encoder, components.views, compute, workers=workers)(dataset, index)

    quality = CollapseMonitor(
        components.dataset, components.views, compute.device, seed=config["seed"], full=True, warn=console.warn
    )
    glance = OnlineEvaluation(components.dataset, embed, quality)
    if metric is not None and metric not in RISING:
        raise UserError(f"checkpoint.keep_best: there is no '{metric}' to keep by. {suggest(metric, RISING)}")
    if metric == "knn_top1" and not glance.has_labels:
        raise UserError("checkpoint.keep_best=knn_top1: these data have no labels to read it by. Use rankme or lidar.")
    return Watch(glance, every=watch.every, share=watch.share, metric=metric, patience=watch.patience)


def make_collapse_monitor(
    config: Mapping[str, Any], components: Components, compute: Compute, console: Console
) -> CollapseMonitor:
    """Label-free metrics of this run's encoder on samples that it is not trained on."""
    full = config["log"]["quality"] == "full"
    return CollapseMonitor(
        components.dataset, components.views, compute.device, seed=config["seed"], full=full, warn=console.warn
    )


def check_fit(
    components: Components, train: TrainSection, compute: Compute, seed: int, ranks: Ranks | None = None
) -> None:
    """Refuse, before the first step, components that cannot work together, by a dry pass over a few samples."""
    if components.objective.couples_batch and train.batch_size < 2:
        raise UserError("train.batch_size: this objective compares samples with each other; give at least 2.")
    pieces = train.accumulate * (ranks or Ranks()).size
    if train.batch_size == pieces and batch_norms(components.encoder, components.objective):
        raise UserError(
            "train.batch_size: BatchNorm needs micro-batches of at least 2; lower train.accumulate, "
            "or use encoder.norm=layer and objective.norm=layer."
        )
    index = torch.arange(min(4, len(components.dataset)))
    columns = {name: c.to(compute.device) for name, c in components.dataset.fetch(index).items()}
    try:
        components.objective.check(len(components.dataset), train.batch_size // pieces)
        dry_loss(components, columns, compute, seed=seed)
    except ValueError as error:
        raise UserError(f"objective: {error}") from error


def _identity(config: Mapping[str, Any], dataset: Dataset, compute: Compute, ranks: Ranks) -> dict[str, Any]:
    """What a checkpoint says of its run beside the state: enough to rebuild the encoder without the data."""
    return {
        "version": sslcli.__version__,
        "config": {**config},
        "spec": dataset.spec.to_plain(),
        "data": dataset.fingerprint(),
        "environment": environment(compute, ranks),
    }


def _length(train: TrainSection, loader: Loader) -> Length:
    if train.epochs is not None:
        return Length(max(1, round(train.epochs * loader.steps_per_epoch)), None)
    return Length(train.steps, train.minutes)
