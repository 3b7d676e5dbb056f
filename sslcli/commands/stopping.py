"""What a run that a signal has stopped says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sslcli.run_dir import checkpoint
from sslcli.signals import Stopped
from sslcli.training.trainer import Trainer


@contextmanager
def telling_what_is_saved(trainer: Trainer) -> Iterator[None]:
    """Let a signal that ends this block say at which step training stands, and in which file that is saved."""
    try:
        yield
    except Stopped as stop:
        saved = checkpoint.steps(trainer.run_dir)
        if saved:
            stop.saved = f"stopped at step {trainer.step}, saved {checkpoint.FOLDER}/{saved[0].name}"
        raise
