"""``ssl-train plan=true``: what a run would cost, measured in a few real steps on the device; nothing is written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from sslcli.commands.accumulate import fewest_that_fit, limit_for, of_ranks, refuse_coupled, with_number
from sslcli.commands.build_trainer import make_loggers, make_trainer
from sslcli.commands.checks import check_fit
from sslcli.commands.find_run import find_run
from sslcli.commands.fresh_process import Fresh
from sslcli.commands.plan_lines import Parts, Plan, disk, number_of_steps, plan_lines
from sslcli.components import build_components
from sslcli.config.automatic import AUTO
from sslcli.config.composed import TrainConfig, to_plain
from sslcli.config.instantiate import allow, build
from sslcli.config.origin import Origin
from sslcli.data.disk_cache import reading_only
from sslcli.distributed.ranks import Ranks
from sslcli.distributed.start import Start, available_cpus
from sslcli.errors import UserError
from sslcli.evaluation.base import Probe
from sslcli.run_dir.console import Console
from sslcli.run_dir.formatting import in_bytes, in_time, wrapped
from sslcli.training.device import choose, set_determinism, set_threads
from sslcli.training.plan_memory import cost_of

_SECONDS = 4.0  # for which steps are timed
_SECONDS_OF_JOB = 1.0  # the same, for a job of a sweep
_CHEAP = 20.0  # seconds that a trial of the largest batch may take
_LONG = 20.0  # seconds: longer steps are not made at this batch
_TIMM = "timm:"


def plan(config: TrainConfig, run_dir: Path | None, origin: Origin) -> None:
    """Measure and print what a run would cost. Of several processes that were started, the first one does.

    Raises:
        UserError: any error that the user can correct, of the run too.
    """
    if not Start.read().first:
        return
    console = Console()
    with built(config, run_dir, origin) as parts:
        fresh = Fresh(parts.config, parts.components, parts.compute, torch.get_num_threads())
        found = made_plan(parts, fresh, limit_for(parts.compute, parts.size))
        for name, text in plan_lines(parts, found):
            for line in wrapped(f"{name:<11} {text}", indent=12):
                console.line(line)


def plan_line(
    config: TrainConfig, overrides: Sequence[str], run_dir: Path | None = None, name: str | None = None
) -> tuple[str, float]:
    """Return a line about a job of a sweep, with its name, samples/s, time and disk; and its time in seconds.

    Its steps are made in this process, without the memory; but for ``train.accumulate=auto``, which needs that. Several
    processes are taken to be as many times as fast as one.

    Args:
        config: that of the job.
        overrides: those of the job.
        run_dir: its folder.
        name: what to call it; None for its overrides.

    Raises:
        UserError: any error that the user can correct, of the run too.
    """
    with built(config, run_dir, Origin(overrides=overrides)) as parts:
        if config.train.accumulate == AUTO:
            fresh = Fresh(parts.config, parts.components, parts.compute, torch.get_num_threads())
            found = made_plan(parts, fresh, limit_for(parts.compute, parts.size), _SECONDS_OF_JOB)
            size, step = found.checkpoint, found.step
        else:
            cost = cost_of(parts.trainer, {"config": to_plain(config)}, seconds=_SECONDS_OF_JOB)
            size, step = cost.checkpoint, cost.seconds / parts.size
        steps = number_of_steps(parts.trainer.length, step)
        bytes_ = in_bytes(sum(disk(parts, size, steps).values()))
        speed = f"{parts.config.train.batch_size / step:,.0f} samples/s"
    name = " ".join(overrides) if name is None else name
    return "  ".join((name, speed, in_time(steps * step), bytes_)), steps * step


@contextmanager
def built(config: TrainConfig, run_dir: Path | None, origin: Origin) -> Iterator[Parts]:
    """Build and check everything as ``ssl-train`` does before its first step, without a file and without a lock."""
    allow(config.plugins)
    size = _size(config)
    compute = choose(config.device.name, config.train.precision)
    set_threads(config.device.threads or (max(1, available_cpus() // size) if size > 1 else None))
    set_determinism(config.train.deterministic)
    with ExitStack() as held:
        unwritten = held.enter_context(reading_only())
        elsewhere = Path(held.enter_context(tempfile.TemporaryDirectory()))  # where bad samples are listed
        dataset = None
        if run_dir is None:
            run_dir, dataset = find_run(config, origin.choices, Ranks())
        starts_from_weights = config.encoder.weights is not None
        config, notes = _without_downloads(config)
        components = build_components(config, dataset=dataset)
        if config.train.accumulate == AUTO:
            refuse_coupled(components)
        one = with_number(config, 1) if config.train.accumulate == AUTO else config
        build(config.probe.node, Probe, where="probe")
        make_loggers(config, Console(silent=True), Ranks())
        trainer = make_trainer(one, components, compute, elsewhere, Console())
        check_fit(one, components, compute)
        for hook in trainer.hooks:
            hook.check(trainer)
        trainer.hooks.clear()
        if unwritten:
            notes = (*notes, ("index", f"the run keeps an index of its data in {Path(unwritten[0]).parent}"))
        yield Parts(config, components, trainer, compute, size, run_dir, starts_from_weights, notes)


def _size(config: TrainConfig) -> int:
    """Return the number of the run's processes: those that were started, or will be by ``device.num``."""
    started = Start.read().size
    num = config.device.num
    size = started if started > 1 else max(1, torch.cuda.device_count()) if num == "all" else int(num or 1)
    if config.train.batch_size % size:
        raise UserError(f"train.batch_size={config.train.batch_size} is not a multiple of {size} processes.")
    return size


def _without_downloads(config: TrainConfig) -> tuple[TrainConfig, tuple[tuple[str, str], ...]]:
    """Return the config without weights that come from a network; a step with random ones costs the same."""
    weights = config.encoder.weights
    if weights is None or not weights.startswith(_TIMM):
        return config, ()
    text = f"the run takes {weights} from its hub; the plan has random ones"
    return replace(config, encoder=replace(config.encoder, weights=None)), (("weights", text),)


def made_plan(parts: Parts, fresh: Fresh, limit: int, seconds: float = _SECONDS) -> Plan:
    """Measure a run.

    Args:
        parts: those of the run.
        fresh: makes its steps.
        limit: bytes that each of its processes may take.
        seconds: for which steps of its batch are timed.
    """
    config, components, own = parts.config, parts.components, parts.own
    single, high = fresh.line(own)
    line = of_ranks(single, components, parts.size)
    step = own * high.seconds / high.batch
    if config.train.accumulate == AUTO:
        pieces, _ = fewest_that_fit(fresh, line, own, limit, seconds=step)
    else:
        pieces = config.train.num_micro
    memory, cost = line.at(own // pieces), None
    if memory <= limit and step <= _LONG:
        cost = fresh.cost(own, pieces, seconds=seconds)
        if cost is None:
            memory = limit + 1  # more than was predicted
    if cost is not None:
        memory, step = cost.peak + round(line.base - single.base), cost.seconds
    data = len(components.dataset) // parts.size
    fits = line.most(limit)
    most = data if fits is None else min(data, fits * pieces)
    most -= most % pieces
    tried = None
    if most > own and 4 * step * most / own <= _CHEAP:
        tried = fresh.cost(most, pieces)
    return Plan(pieces, limit, line, memory, cost, step, high.checkpoint, most * parts.size, tried)
