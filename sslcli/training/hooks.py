"""Hooks: objects whose methods the trainer calls around each step, hook by hook in the order of its list.

After a step the trainer calls ``after_step`` of all hooks, then decides whether the run ends, and then calls ``write``
of all hooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslcli.data.loader import Batch
    from sslcli.training.trainer import Trainer


class Hook:
    """The interface of hooks; a hook implements the methods that it needs."""

    name: str = ""  # the key of its state in checkpoints; empty if it has no state

    def check(self, trainer: Trainer) -> None:
        """Raise UserError if this hook cannot do what its config says; called before anything is written."""

    def start(self, trainer: Trainer) -> None:
        """Act before the first step of this session."""

    def before_step(self, trainer: Trainer, batch: list[Batch]) -> None:
        """Act before the gradients of a step are computed; the step's micro-batches are on the device."""

    def after_step(self, trainer: Trainer) -> None:
        """Act after a step; ``trainer.values`` has its scalars, ``trainer.reached_end`` is whether it was the last."""

    @property
    def ends_run(self) -> bool:
        """Whether the run should end before its length is reached."""
        return False

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        """Return the entries that this hook adds to the next line of metrics."""
        return {}

    def write(self, trainer: Trainer) -> None:
        """Write files after a step, when ``trainer.ends`` (the run ends) and ``trainer.signal`` (it stops) are set."""

    def interrupted(self, trainer: Trainer) -> None:
        """Save what there is when the wait for the next batch has been ended, by a signal or a failure of the data."""

    def end(self, trainer: Trainer) -> None:
        """Act at the end of the session, also after an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors for the checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any], trainer: Trainer) -> None:
        """Restore the state from a checkpoint."""
