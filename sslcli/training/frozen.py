"""Keeps the encoder as it is for the first steps of a run, while the heads are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sslcli.encoders.base import Encoder
from sslcli.errors import UserError
from sslcli.objectives.base import Objective
from sslcli.objectives.teacher import Teacher
from sslcli.training.grad_cache import frozen_statistics


class Frozen:
    """The encoder of a run and its momentum copies, of which the first ``steps`` steps change no bit.

    BatchNorm in them normalises by the batch, as in training, and keeps its running statistics. The heads, and their
    momentum copies, are trained.

    Args:
        encoder, objective: what is trained.
        steps: for how many steps the encoder is frozen.

    Raises:
        UserError: the objective has nothing else to train.
    """

    def __init__(self, encoder: Encoder, objective: Objective, steps: int) -> None:
        if steps and not any(parameter.requires_grad for parameter in objective.parameters()):
            name = type(objective).__name__
            raise UserError(
                f"encoder.freeze_steps: {name} has no weights of its own, so nothing would be trained. Use 0."
            )
        self.steps = steps
        self._parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        self._modules = [encoder, *(m.encoder for m in objective.modules() if isinstance(m, Teacher))]

    @contextmanager
    def during(self, step: int) -> Iterator[None]:
        """Freeze the encoder in this block if ``step``, counted from 0, is one of the first."""
        if step >= self.steps:
            yield
            return
        self._require_gradients(False)
        try:
            with frozen_statistics(self._modules):
                yield
        finally:
            self._require_gradients(True)

    def _require_gradients(self, value: bool) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(value)
