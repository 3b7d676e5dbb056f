"""Scores of predictions beside the accuracy: balanced accuracy, macro-F1, and, of several labels, average precision.

All count every class alike. Each is a value for every query, whose mean is the score (see ``standard_errors``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sslcli.evaluation.base import Metric, compared
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.standard_errors import pseudo_values
from sslcli.run_dir.formatting import SHARE


def balanced_accuracy(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return values (Q,) whose mean is the mean recall of the classes in ``truth`` (Q,) (Brodersen et al. 2010)."""
    right, present = predicted == truth, truth.unique()

    def statistic(weights: Tensor) -> Tensor:
        recall = _summed(weights, truth, right) / _summed(weights, truth).clamp(min=1e-30)
        return recall[present].mean()

    return pseudo_values(statistic, len(truth))


def macro_f1(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return values (Q,) whose mean is the mean over classes of F1 = 2 TP / (2 TP + FP + FN).

    Classes that are neither predicted nor true for any query are left out (as in scikit-learn).
    """
    right, present = predicted == truth, torch.cat([predicted, truth]).unique()
    classes = int(present.max()) + 1

    def statistic(weights: Tensor) -> Tensor:
        hits = _summed(weights, truth, right, classes)
        either = _summed(weights, truth, classes=classes) + _summed(weights, predicted, classes=classes)
        return (2 * hits / either.clamp(min=1e-30))[present].mean()

    return pseudo_values(statistic, len(truth))


def mean_average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Return values (Q,) whose mean is the average precision, averaged over the classes that some query has.

    The average precision of a class is the sum over thresholds of precision times the gain in recall, without
    interpolation (as in scikit-learn); queries of equal scores pass a threshold together.

    Args:
        scores: (Q, C), larger for classes that a query is more likely to have.
        truth: (Q, C) bool, the classes that it has.
    """
    orders = []
    for score, has in zip(scores.T, truth.T):
        if has.any():
            order = score.argsort(descending=True, stable=True)
            _, counts = score[order].unique_consecutive(return_counts=True)
            last = (counts.cumsum(0) - 1).repeat_interleave(counts)  # where the threshold of each query ends
            orders.append((order, last, has[order]))

    def statistic(weights: Tensor) -> Tensor:
        found = []
        for order, last, has in orders:
            passed = weights[order]
            hits = passed * has
            precision = (hits.cumsum(0) / passed.cumsum(0).clamp(min=1e-30))[last]
            found.append((hits * precision).sum() / hits.sum())
        return torch.stack(found).mean() if found else weights.sum() * 0

    return pseudo_values(statistic, len(truth))


def _summed(weights: Tensor, labels: Tensor, where: Tensor | None = None, classes: int | None = None) -> Tensor:
    """Return the sum of the weights (Q,) of each class (C,), of the queries ``where`` (Q,) only."""
    counted = weights if where is None else weights * where
    return weights.new_zeros(classes or int(labels.max()) + 1).index_add(0, labels, counted)


_BESIDE: tuple[tuple[str, Callable[[Tensor, Tensor], Tensor], str], ...] = (
    ("balanced_accuracy", balanced_accuracy, "; mean recall"),
    ("macro_f1", macro_f1, "; mean F1"),
)


def predicted_metrics(
    context: ProbeContext,
    name: str,
    predicted: Mapping[str, Tensor],
    truth: Tensor,
    protocol: str,
    *,
    headline: bool,
    **more: Any,
) -> dict[str, Metric]:
    """Return the metrics of predictions by representation.

    Args:
        context: what was measured on.
        name: the name of the first metric, such as ``knn_top1``.
        predicted: by representation, the class of each query (Q,), or scores (Q, C) for several labels a sample.
        truth: the classes (Q,), or the labels (Q, C) bool.
        protocol: how the predictions were made.
        headline: whether the first metric is the probe's headline; balanced accuracy and macro-F1 stand beside it.
        more: further fields of the first metric.
    """

    def of(score: Callable[[Tensor, Tensor], Tensor], words: str, **fields: Any) -> Metric:
        values = {representation: score(guess, truth) for representation, guess in predicted.items()}
        return compared(context, values, f"{protocol}{words}", unit=SHARE, higher_is_better=True, **fields)

    if truth.dim() == 2:
        return {name: of(mean_average_precision, "; mean average precision", headline=headline, **more)}
    found = {name: of(torch.eq, "", headline=headline, **more)}
    if headline:
        found |= {f"{name.removesuffix('_top1')}_{title}": of(score, words) for title, score, words in _BESIDE}
    return found
