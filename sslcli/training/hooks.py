"""What happens around a step: each hook is told of the same events, in the order in which hooks stand in their list.

After a step every hook hears of it; then it is settled whether the run ends; then every hook may write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslcli.data.loader import Batch
    from sslcli.training.trainer import Trainer


class Hook:
    """One thing that happens around the steps; it implements the events that it needs."""

    name: str = ""  # under which its state stands in every checkpoint; empty if it has none

    def start(self, trainer: Trainer) -> None:
        """Before the first step of this session."""

    def before_step(self, trainer: Trainer, batch: list[Batch]) -> None:
        """Before the gradients of a step are taken, with the step's micro-batches on the device."""

    def after_step(self, trainer: Trainer) -> None:
        """After a step, whose scalars are ``trainer.values``; ``trainer.reached_end`` says if the length is reached."""

    @property
    def ends_run(self) -> bool:
        """Whether the run is to end before its length is reached."""
        return False

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        """What it adds to the line of metrics that is about to be written."""
        return {}

    def write(self, trainer: Trainer) -> None:
        """After it is settled whether the run ends with this step (``trainer.ends``) or stops (``trainer.signal``)."""

    def end(self, trainer: Trainer) -> None:
        """At the end of the session, whatever ended it."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors for the checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any], trainer: Trainer) -> None:
        """Go on from a checkpoint's state."""
