"""Build the trainer and its hooks from a config and a run's components."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

import sslcli
from sslcli.components import Components
from sslcli.config.composed import TrainConfig, to_plain
from sslcli.config.instantiate import build
from sslcli.config.sections import TrainSection
from sslcli.data.classes import class_counts
from sslcli.data.dataloading import make_loader
from sslcli.data.loader import Loader
from sslcli.distributed.ranks import Ranks
from sslcli.errors import UserError
from sslcli.evaluation.base import Probe
from sslcli.evaluation.collapse_monitor import CollapseMonitor
from sslcli.evaluation.measure import context_of
from sslcli.evaluation.online import OnlineMetrics, online_name
from sslcli.loggers.base import Logger, Loggers
from sslcli.run_dir.console import Console
from sslcli.sweeps.trial import Trial
from sslcli.training.checkpoints import Checkpoints
from sslcli.training.collapse_stop import CollapseStop
from sslcli.training.early_stopping import BestSteps
from sslcli.training.environment import environment
from sslcli.training.gradient_conflict import GradientConflict
from sslcli.training.hooks import Hook
from sslcli.training.length import Length
from sslcli.training.metric_lines import MetricLines
from sslcli.training.not_learning import NotLearning
from sslcli.training.online_evaluation import OnlineEvaluation
from sslcli.training.optim import parameter_groups, split_by_depth
from sslcli.training.progress_bar import ProgressBar
from sslcli.training.pruning import Pruning
from sslcli.training.quality_metrics import QualityMetrics
from sslcli.training.schedule import Schedule
from sslcli.training.strategy import choose_strategy
from sslcli.training.trainer import Trainer
from sslcli.types import Compute

Record = Callable[[Mapping[str, Any]], None]  # writes a line of metrics


def make_trainer(
    config: TrainConfig,
    components: Components,
    compute: Compute,
    run_dir: Path,
    console: Console,
    ranks: Ranks | None = None,
    *,
    record: Record = lambda line: None,
    monitor: CollapseMonitor | None = None,
) -> Trainer:
    """Build a trainer at step 0, with its modules on the device and in the channels-last memory format.

    Args:
        config: the run's config.
        components: the components built from it.
        compute: device and precision.
        run_dir: the run directory.
        console: prints the run's messages.
        ranks: the processes of the run.
        record: writes the lines of metrics; called in the first process only.
        monitor: measures the label-free metrics of ``log.quality``; None creates one.
    """
    ranks = ranks or Ranks()
    loader = make_loader(
        config,
        components.dataset,
        crops=components.views.crops,
        device=compute.device,
        run_dir=run_dir,
        console=console,
        ranks=ranks,
    )
    _recompute_and_synchronise(config.train, components, ranks)
    for module in (components.encoder, components.objective, components.views):
        module.to(compute.device)
    for module in (components.encoder, components.objective):  # the objective may hold a copy of the encoder
        module.to(memory_format=torch.channels_last)
    optimizer = _optimizer(config, components, loader.batch_size)
    return Trainer(
        components.encoder,
        components.objective,
        components.views,
        loader=loader,
        optimizer=optimizer,
        schedule=build(config.schedule.node, Schedule, where="schedule"),
        compute=compute,
        length=_length(config.train, loader),
        seed=config.seed,
        train=config.train,
        freeze_steps=config.encoder.freeze_steps,
        run_dir=run_dir,
        strategy=choose_strategy(config.device.strategy, ranks),
        hooks=make_hooks(config, components, compute, run_dir, console, ranks, record=record, monitor=monitor),
        warn=console.warn,
    )


def _recompute_and_synchronise(train: TrainSection, components: Components, ranks: Ranks) -> None:
    """Change the modules as ``train.recompute`` and ``train.sync_norm`` say."""
    if train.recompute == "blocks":
        try:
            components.encoder.recompute_blocks()
        except ValueError as error:
            raise UserError(f"train.recompute=blocks: {error}. Use train.recompute=none.") from error
    if train.sync_norm and ranks.size > 1:
        from sslcli.training.sync_norm import synchronise  # it imports timm and torch's compiler

        synchronise(components.encoder, components.objective)


def _optimizer(config: TrainConfig, components: Components, batch_size: int) -> Optimizer:
    groups = parameter_groups([components.encoder, components.objective])
    optimizer = build(config.optimizer.node, Optimizer, groups, batch_size, where="optimizer")
    layer_decay = config.optimizer.layer_decay
    if layer_decay != 1 or config.encoder.freeze_steps:  # torch's SGD fails on groups of which a part has no momentum
        split_by_depth(optimizer, components.encoder, layer_decay)
    return optimizer


def make_hooks(
    config: TrainConfig,
    components: Components,
    compute: Compute,
    run_dir: Path,
    console: Console,
    ranks: Ranks,
    *,
    record: Record,
    monitor: CollapseMonitor | None,
) -> list[Hook]:
    """Build the hooks of a run, in the order in which they are called."""
    by_first = record if ranks.first else lambda line: None
    metric = config.checkpoint.keep_best
    best = BestSteps(metric and online_name(metric), config.probe.patience, config.probe.patience_after)
    measure = make_online_metrics(config, components, compute, console) if config.probe.every else None
    online = OnlineEvaluation(
        measure,
        every=config.probe.every or 1,
        share=config.probe.share,
        best=best,
        console=console,
        record=by_first,
        **({} if measure is None else {"direction": measure.direction}),
    )
    hooks: list[Hook] = [ProgressBar(console), online, GradientConflict(config.log.every)]
    trial = Trial.of_environment()
    if trial is not None and config.probe.every:
        hooks.append(Pruning(online, config.probe.every, trial, console))
    monitor = monitor or make_collapse_monitor(config, components, compute, console)
    stops = config.train.stop_on is not None
    quality = QualityMetrics(monitor, online)
    if ranks.first and (stops or config.log.quality != "none"):
        hooks.append(quality)
    lines = MetricLines(config.log.every, console, by_first)
    hooks += [lines, NotLearning(lines, console)]
    if stops:
        dim = components.encoder.dim
        hooks.append(CollapseStop(lambda: bool(monitor.signs(quality.latest, dim)), config.log.every, console))
    facts = functools.cache(lambda: identity(config, components, compute, ranks))  # computed at the first save
    hooks.append(Checkpoints(run_dir, config.checkpoint, facts, best))
    return hooks


def make_online_metrics(
    config: TrainConfig, components: Components, compute: Compute, console: Console
) -> OnlineMetrics:
    """Build the metrics that are measured during training.

    Raises:
        UserError: the probe has no cheap form.
    """
    probe = build(config.probe.node, Probe, where="probe").cheap()
    if probe is None:
        raise UserError(
            f"probe.every: {config.probe.name} has no cheap form to be measured while training. "
            "Take another probe, such as probe=knn, or none by probe.every=null."
        )
    monitor = CollapseMonitor(
        components.dataset, components.views, compute.device, seed=config.seed, full=True, warn=console.warn
    )
    return OnlineMetrics(probe, lambda encoder: context_of(config, components, compute, encoder), monitor)


def make_collapse_monitor(
    config: TrainConfig, components: Components, compute: Compute, console: Console
) -> CollapseMonitor:
    """Build the monitor of the label-free metrics in ``log.quality``."""
    return CollapseMonitor(
        components.dataset,
        components.views,
        compute.device,
        seed=config.seed,
        full=config.log.quality == "full",
        warn=console.warn,
    )


def make_loggers(config: TrainConfig, console: Console, ranks: Ranks) -> Loggers:
    """Build the loggers of a run; only the first process logs, but all processes raise errors in their config."""
    made = {name: build(choice.node, Logger, where=f"logger.{name}") for name, choice in config.logger.items()}
    return Loggers(made if ranks.first else {}, console.warn)


def identity(config: TrainConfig, components: Components, compute: Compute, ranks: Ranks) -> dict[str, Any]:
    """Return the description of the run in its checkpoints, from which the encoder can be rebuilt without the data."""
    return {
        "version": sslcli.__version__,
        "config": to_plain(config),
        "spec": components.dataset.spec.to_plain(),
        "data": components.dataset.fingerprint(),
        "initial_weights": components.initial_weights,
        "folder": str(Path.cwd()),
        "files": components.fitted.digests(),
        "classes": class_counts(components.dataset),
        "environment": environment(compute, ranks),
    }


def _length(train: TrainSection, loader: Loader) -> Length:
    if train.epochs is not None:
        return Length(max(1, round(train.epochs * loader.steps_per_epoch)), None)
    return Length(train.steps, train.minutes)
