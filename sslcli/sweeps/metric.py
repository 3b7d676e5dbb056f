"""What a search improves: found before the first trial by measuring the untrained encoder, in a process of its own.

So the sweep's process does not load torch, nor use a GPU, before it starts its jobs.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sslcli import signals
from sslcli.config.composed import TrainConfig
from sslcli.errors import UserError, suggest
from sslcli.sweeps.search import WHERE, Search

if TYPE_CHECKING:
    from sslcli.types import Compute


_SAMPLES = 512  # names and directions are asked for, not values


@dataclass(frozen=True)
class Known:
    """What is measured on these data.

    Args:
        final: at the end of a run, as far as the probe's cheap form knows: by name, whether higher is better, or None
            where neither is.
        online: by the same names, the name of what is measured while a run trains.
        headline: the name of the run's headline; None if only the end of a run knows it.
    """

    final: dict[str, bool | None]
    online: dict[str, str]
    headline: str | None


@dataclass(frozen=True)
class Aim:
    """What a search improves.

    Args:
        metric: the name in ``result.json``; None for the headline.
        online: the name of the metric while a run trains; None if it is not measured there.
        direction: ``maximize`` or ``minimize``.
    """

    metric: str | None
    online: str | None
    direction: Literal["maximize", "minimize"]


def measure_known(config: TrainConfig) -> Known:
    """Measure the untrained encoder of a run.

    Raises:
        UserError: the run cannot be built.
    """
    parent, child = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_answer, args=(config, child), daemon=True)
    process.start()
    child.close()
    try:
        answer = parent.recv()
    except EOFError:
        raise UserError(f"{WHERE}: the run could not be built; a trial of its own says why: leave out -m.") from None
    finally:
        process.kill()  # it has answered, or must not
        process.join()
    if isinstance(answer, str):
        raise UserError(answer)
    return answer


def _answer(config: TrainConfig, channel: Any) -> None:
    signals.ignore()  # the sweep's process answers them
    try:
        channel.send(_measure(config))
    except UserError as error:
        channel.send(str(error))


def _measure(config: TrainConfig) -> Known:
    from sslcli.components import build_components
    from sslcli.config.instantiate import allow, build
    from sslcli.evaluation.base import NoProbe, Probe, headline
    from sslcli.evaluation.label_free import HIGHER_IS_BETTER
    from sslcli.evaluation.measure import context_of, held_out_loss
    from sslcli.evaluation.online import online_name

    allow(config.plugins)
    compute = _compute(config)
    components = build_components(config)
    encoder = components.encoder.eval()
    for module in (encoder, components.objective, components.views):
        module.to(compute.device)
    choice = config.probe.with_keys(max_samples=_SAMPLES) if "max_samples" in config.probe.node else config.probe
    probe = build(choice.node, Probe, where="probe")
    cheap = probe.cheap()
    form = probe if isinstance(cheap, NoProbe) else cheap
    context = context_of(config, components, compute, encoder)
    metrics = {} if form is None else form(context)
    online = [*({} if isinstance(cheap, NoProbe) else metrics), *HIGHER_IS_BETTER]
    named = headline(metrics)
    if form is not None and not metrics and not context.left_out:
        metrics = held_out_loss(config, components, compute)
        named = headline(metrics) or "rankme"
    final = {name: metric.higher_is_better for name, metric in metrics.items()}
    return Known({**HIGHER_IS_BETTER, **final}, {name: online_name(name) for name in online}, named)


def _compute(config: TrainConfig) -> Compute:
    """Return the device of the run, or, where the sweep's own machine does not have it, the CPU."""
    from sslcli.distributed.start import Start
    from sslcli.training.device import choose

    try:
        return choose(config.device.name, config.train.precision, Start.read())
    except UserError:
        return choose("cpu", "fp32")


def aim_of(search: Search, known: Known) -> Aim:
    """Return what a search improves.

    Raises:
        UserError: there is no such metric, neither direction of it is better, or it is not known before the end of a
            run and no direction is given, or a pruner cannot see it.
    """
    name = search.metric or known.headline
    if name is None and search.direction is None:
        raise UserError(
            f"{WHERE}.direction: only the end of a run measures what this probe does. Give maximize or minimize."
        )
    if name is not None and name not in known.final and search.direction is None:
        raise UserError(
            f"{WHERE}.metric: there is no '{name}' on these data. {suggest(name, known.final)} One that only the end "
            f"of a run measures needs {WHERE}.direction, too."
        )
    direction = search.direction or _direction(name, known.final[name or ""])
    online = known.online.get(name or "")
    if search.prunes and online is None:
        raise UserError(
            f"{WHERE}.pruner={search.pruner}: {name or 'the headline'} is not measured while training. "
            f"{suggest(name or '', known.online)} Give one as {WHERE}.metric."
        )
    return Aim(search.metric, online, direction)


def _direction(name: str | None, higher_is_better: bool | None) -> Literal["maximize", "minimize"]:
    if higher_is_better is None:
        raise UserError(
            f"{WHERE}.metric={name}: neither a higher nor a lower value of it is better. Give {WHERE}.direction."
        )
    return "maximize" if higher_is_better else "minimize"
