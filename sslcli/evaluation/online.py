"""The metrics of an encoder during training: kNN and label-free metrics on a small, fixed sample."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sslcli.data.base import Dataset, balanced
from sslcli.encoders.base import Encoder
from sslcli.evaluation.collapse_monitor import CollapseMonitor
from sslcli.evaluation.context import labels_of
from sslcli.evaluation.knn import knn_accuracy

BANK, QUERIES = 2000, 1000
K, TEMPERATURE = 20, 0.07
RISING = ("knn_top1", "rankme", "lidar")  # metrics for which higher is better


class OnlineMetrics:
    """Measures ``knn_top1``, if there are labels, and the metrics of ``CollapseMonitor``, always on the same samples.

    20-NN of 1,000 held-out samples in 2,000 training samples has a standard error of about a point. Differences
    between steps of a run are more precise, as they are measured on the same samples.

    Args:
        dataset: the training split.
        embed: returns float32 features (N, D), on the CPU, of samples of a split, in eval mode.
        monitor: measures the label-free metrics.
    """

    def __init__(
        self, dataset: Dataset, embed: Callable[[Encoder, Dataset, Tensor], Tensor], monitor: CollapseMonitor
    ) -> None:
        self._dataset, self._embed, self._monitor = dataset, embed, monitor
        labelled = labels_of(dataset)
        self._samples = labelled and (balanced(labelled[0], BANK), balanced(labelled[1], QUERIES))

    @property
    def has_labels(self) -> bool:
        """Whether it measures ``knn_top1``."""
        return self._samples is not None

    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """Return the metrics by name."""
        return {**self._knn(encoder), **self._monitor(encoder)}

    def _knn(self, encoder: Encoder) -> dict[str, float]:
        held_out = self._dataset.held_out
        if self._samples is None or held_out is None:
            return {}
        bank, queries = self._samples
        assert self._dataset.labels is not None and held_out.labels is not None
        (accuracy,) = knn_accuracy(
            self._embed(encoder, self._dataset, bank),
            self._dataset.labels[bank],
            self._embed(encoder, held_out, queries),
            held_out.labels[queries],
            ks=[K],
            temperature=TEMPERATURE,
        )
        return {"knn_top1": accuracy}
