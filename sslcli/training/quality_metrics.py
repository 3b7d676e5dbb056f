"""The hook that adds label-free metrics of the encoder to every line of metrics."""

from __future__ import annotations

from collections.abc import Callable

from sslcli.encoders.base import Encoder
from sslcli.training.hooks import Hook
from sslcli.training.trainer import Trainer


class QualityMetrics(Hook):
    """Adds ``quality/NAME`` to the lines of metrics.

    Args:
        measure: returns label-free metrics of an encoder by name and changes nothing.
    """

    def __init__(self, measure: Callable[[Encoder], dict[str, float]]) -> None:
        self._measure = measure

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        return {f"quality/{name}": value for name, value in self._measure(trainer.encoder).items()}
