"""The metrics of an encoder during training: the cheap form of the run's probe, and label-free metrics."""

from __future__ import annotations

from collections.abc import Callable

from sslcli.encoders.base import Encoder
from sslcli.errors import UserError, suggest
from sslcli.evaluation.base import Metric, Probe
from sslcli.evaluation.collapse_monitor import CollapseMonitor
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.label_free import HIGHER_IS_BETTER

_PREFIX = "online_"


def online_name(metric: str) -> str:
    """Return the name of a metric while a run trains: ``online_knn_top1`` for ``knn_top1``.

    It is measured on fewer samples than the final one. Label-free metrics are called the same: the final ones are
    measured on as many samples, unless the probe is about them.
    """
    return metric if metric in HIGHER_IS_BETTER or metric.startswith(_PREFIX) else f"{_PREFIX}{metric}"


class OnlineMetrics:
    """Measures the cheap form of a probe and the metrics of ``CollapseMonitor``, always on the same samples.

    For kNN, 1,000 held-out samples in 2,000 training samples have a standard error of about a point. Differences
    between steps of a run are more precise, as they are measured on the same samples.

    Args:
        probe: the cheap form of the run's probe.
        context: returns the context of an encoder without baselines.
        monitor: measures the label-free metrics.
    """

    def __init__(self, probe: Probe, context: Callable[[Encoder], ProbeContext], monitor: CollapseMonitor) -> None:
        self._probe, self._context, self._monitor = probe, context, monitor

    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """Return the metrics by name."""
        return {name: metric.value for name, metric in self.metrics(encoder).items()}

    def metrics(self, encoder: Encoder) -> dict[str, Metric]:
        """Return the metrics by name, each with its direction."""
        found = {online_name(name): metric for name, metric in self._probe(self._context(encoder)).items()}
        label_free = {
            name: Metric(value, "", unit="", higher_is_better=HIGHER_IS_BETTER[name])
            for name, value in self._monitor(encoder).items()
        }
        return {**found, **label_free}

    def direction(self, metric: str, encoder: Encoder) -> bool:
        """Return whether a higher value of a metric is better.

        Raises:
            UserError: it is not measured while training, or neither direction is better.
        """
        known = self.metrics(encoder)
        if metric not in known:
            name = metric.removeprefix(_PREFIX)
            others = [key.removeprefix(_PREFIX) for key, m in known.items() if m.higher_is_better is not None]
            raise UserError(
                f"checkpoint.keep_best: there is no '{name}' to keep by. {suggest(name, others)} "
                "It is one of what this probe measures on these data while training."
            )
        higher_is_better = known[metric].higher_is_better
        if higher_is_better is None:
            raise UserError(f"checkpoint.keep_best={metric}: neither a higher nor a lower value of it is better.")
        return higher_is_better
