"""``train.accumulate=auto``: the fewest micro-batches that fit into memory, settled when the parts are there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from sslcli.commands.fresh_process import Fresh
from sslcli.components import Components
from sslcli.config.automatic import AUTO
from sslcli.config.composed import TrainConfig
from sslcli.data.ram_cache import free_memory, num_bytes
from sslcli.distributed.ranks import Ranks
from sslcli.encoders.batchnorm import batch_norms
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint
from sslcli.run_dir.checkpoint import open_run
from sslcli.run_dir.formatting import in_bytes
from sslcli.training.plan_memory import Line, fewest_pieces, memory_limit
from sslcli.training.resume import free_keys, starts_afresh
from sslcli.types import Compute

_OUTPUTS = 4096  # bytes of a sample's outputs, their gradients, and its row of the loss
_SURE = 0.6  # share of the limit below which the line is believed without a trial
_CHEAP = 30.0  # seconds that a trial may take


def with_number(config: TrainConfig, number: int) -> TrainConfig:
    """Return the config with this number of micro-batches."""
    return replace(config, train=replace(config.train, accumulate=number))


def as_before(config: TrainConfig, run_dir: Path, ranks: Ranks) -> TrainConfig:
    """Return the config with the number of the checkpoint that the run goes on from, if it asks for ``auto``."""
    if config.train.accumulate != AUTO:
        return config

    def known() -> int | None:
        if starts_afresh(config, run_dir):
            return None
        _, state = checkpoint.newest(run_dir, lambda text: None) or open_run(config.resume, "resume")
        return int(state["config"].train.num_micro)

    number = ranks.by_first(known)
    return config if number is None else with_number(config, number)


def settle_pieces(
    config: TrainConfig, components: Components, compute: Compute, ranks: Ranks
) -> tuple[TrainConfig, list[str]]:
    """Return the config with a number of micro-batches, and, where that was ``auto``, what was found, in words.

    Args:
        config: the config of the run.
        components: its parts.
        compute: its device and precision.
        ranks: its processes; the first one measures.

    Raises:
        UserError: the split of a batch changes what these parts learn, or not even single samples fit.
    """
    if config.train.accumulate != AUTO:
        return config, []
    if config.preview:
        return with_number(config, 1), []
    refuse_coupled(components)

    def search() -> tuple[int, str]:
        own = config.train.batch_size // ranks.size
        fresh = Fresh(config, components, compute, torch.get_num_threads())
        line, high = fresh.line(own)
        limit = limit_for(compute, ranks.size)
        line = of_ranks(line, components, ranks.size)
        return fewest_that_fit(fresh, line, own, limit, seconds=own * high.seconds / high.batch)

    number, words = ranks.by_first(search)
    by_formula = f" in each of {ranks.size} processes, by formula from one" if ranks.size > 1 else ""
    return with_number(config, number), [f"{words}{by_formula}"]


def refuse_coupled(components: Components) -> None:
    """Raise UserError if these parts learn something else from a batch that is cut into micro-batches."""
    modules = components.encoder, components.objective
    if free_keys(*modules):
        return
    if batch_norms(*modules):
        raise UserError(
            "train.accumulate=auto: BatchNorm normalises by micro-batches, so their number would change the result. "
            "Give a number, or use encoder.norm=layer and objective.norm=layer."
        )
    raise UserError(
        "train.accumulate=auto: dropout depends on how a batch is cut, so the number of micro-batches would change the "
        "result. Give a number, or set the rates of dropout and drop path to 0."
    )


def limit_for(compute: Compute, size: int) -> int:
    """Return the bytes that each of the run's processes may take; those of one host share its memory."""
    limit = memory_limit(compute.device, free_memory())
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    return limit if compute.device.type == "cuda" else limit // max(1, here)


def of_ranks(line: Line, components: Components, size: int) -> Line:
    """Return the memory of each of several processes by the formula: the gradients lie in buckets once more."""
    if size == 1:
        return line
    trained = sum(p.numel() * p.element_size() for m in (components.encoder, components.objective)
                  for p in m.parameters() if p.requires_grad)  # fmt: skip
    return replace(line, base=line.base + trained)


def fewest_that_fit(fresh: Fresh, line: Line, own: int, limit: int, *, seconds: float) -> tuple[int, str]:
    """Return the smallest number of micro-batches whose memory is within the limit, and a line about it.

    The line through two small batches predicts it; where that comes close to the limit, and if it is cheap, a step is
    tried.

    Args:
        fresh: makes the steps.
        line: memory as a function of the micro-batch.
        own: samples of a step in each process.
        limit: the memory that it may take.
        seconds: about how long a step takes.

    Raises:
        UserError: nothing fits.
    """
    whole = 2 * num_bytes(fresh.components.dataset.spec, 1) + _OUTPUTS
    for number in fewest_pieces(own, line, whole, limit):
        needed = line.at(own // number)
        if needed > _SURE * limit and 4 * seconds <= _CHEAP:
            cost = fresh.cost(own, number)
            if cost is None or cost.peak > limit:
                continue
            needed = cost.peak
        words = f"{number} micro-batch{'es' * (number > 1)} of {own // number} samples"
        return number, f"{words} ({in_bytes(needed)} of {in_bytes(limit)} memory)"
    raise UserError(
        f"train.accumulate=auto: single samples need {in_bytes(line.at(1))}, and there are {in_bytes(limit)}. Take a "
        "smaller encoder or smaller pictures, or free memory."
    )
