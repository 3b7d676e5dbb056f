"""The hook that adds label-free metrics of the encoder to every line of metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
        self.latest: Mapping[str, float] = {}  # the metrics at the last line, whoever measured them

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        step, found = self._online.latest
        measured_here = step != trainer.step or not found
        self.latest = self._measure(trainer.encoder) if measured_here else found
        return {f"probe/{name}": value for name, value in self.latest.items()} if measured_here else {}
