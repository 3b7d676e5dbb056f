"""Checks that need all components of a run, made before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

import sslcli
from sslcli.components import Components
from sslcli.config.composed import TrainConfig, to_plain
from sslcli.config.identity import flatten
from sslcli.config.ranges import largest
from sslcli.distributed.ranks import Ranks
from sslcli.encoders.batchnorm import batch_norms
from sslcli.errors import UserError, is_out_of_memory
from sslcli.evaluation.measure import dry_loss
from sslcli.run_dir.console import Console
from sslcli.types import Compute


def facts(config: TrainConfig) -> dict[str, Any]:
    """Return what must be equal in all processes of a run: its config, and the versions of the libraries."""
    return {"torch": torch.__version__, "sslcli": sslcli.__version__, **flatten(to_plain(config))}


def check_fit(config: TrainConfig, components: Components, compute: Compute, ranks: Ranks | None = None) -> None:
    """Check that the components work together, by a dry pass over a few samples.

    Raises:
        UserError: they do not; the message names the key.
    """
    train, ranks = config.train, ranks or Ranks()
    if components.objective.couples_batch and train.batch_size < 2:
        raise UserError("train.batch_size: this objective compares samples with each other; give at least 2.")
    pieces = train.num_micro * ranks.size
    is_one_sample = train.batch_size == _parts_of_batch_norm(config, ranks)
    if is_one_sample and batch_norms(components.encoder, components.objective):
        raise UserError(
            "train.batch_size: BatchNorm needs micro-batches of at least 2; lower train.accumulate, "
            "or use encoder.norm=layer and objective.norm=layer."
        )
    index = torch.arange(min(4, len(components.dataset)))
    columns = {name: c.to(compute.device) for name, c in components.dataset.fetch(index).items()}
    try:
        components.objective.check(len(components.dataset), train.batch_size // pieces)
        with enough_memory(config):
            dry_loss(components, columns, compute, seed=config.seed)
    except ValueError as error:
        raise UserError(f"objective: {error}") from error


def warn_of_batch_norm(config: TrainConfig, components: Components, ranks: Ranks, console: Console) -> None:
    """Warn if, because of BatchNorm, the result depends on the split of the batch."""
    if _parts_of_batch_norm(config, ranks) == 1 or not batch_norms(components.encoder, components.objective):
        return
    if config.train.sync_norm:
        console.warn(
            "BatchNorm sees one micro-batch of all processes at a time, so train.accumulate changes the result; "
            "encoder.norm=layer and objective.norm=layer do not."
        )
        return
    together = "; train.sync_norm=true takes all processes together" if ranks.size > 1 else ""
    console.warn(
        "BatchNorm sees one micro-batch of one process at a time, so train.accumulate and the number of "
        f"processes change the result; encoder.norm=layer and objective.norm=layer do not{together}."
    )


def _parts_of_batch_norm(config: TrainConfig, ranks: Ranks) -> int:
    """Return into how many parts a batch is cut, each of which has its own statistics in BatchNorm."""
    return config.train.num_micro * (1 if config.train.sync_norm else ranks.size)


@contextmanager
def enough_memory(config: TrainConfig) -> Iterator[None]:
    """Convert an out-of-memory error, of the device or of the machine, to a UserError with advice."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        where = "device" if isinstance(error, torch.OutOfMemoryError) else "machine"
        hint = largest("", flatten(to_plain(config)))
        raise UserError(
            f"train.batch_size: the {where} ran out of memory. Raise train.accumulate, which keeps the gradient, "
            f"or lower train.batch_size.{hint}"
        ) from error
