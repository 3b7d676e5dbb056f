"""The hook that adds label-free metrics of the encoder to every line of metrics."""

from __future__ import annotations

from collections.abc import Callable

from sslcli.encoders.base import Encoder
from sslcli.training.hooks import Hook
from sslcli.training.online_evaluation import OnlineEvaluation
from sslcli.training.trainer import Trainer


class QualityMetrics(Hook):
    """Adds ``probe/NAME`` to the lines of metrics, except where online evaluation has measured it at this step.

    Args:
        measure: returns label-free metrics of an encoder by name and changes nothing.
        online: the hook of online evaluation, which comes before this one.
    """

    def __init__(self, measure: Callable[[Encoder], dict[str, float]], online: OnlineEvaluation) -> None:
        self._measure, self._online = measure, online

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        step, found = self._online.latest
        if step == trainer.step and found:
            return {}
        return {f"probe/{name}": value for name, value in self._measure(trainer.encoder).items()}
