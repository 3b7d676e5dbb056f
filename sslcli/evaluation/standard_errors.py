"""Standard errors of metrics over the samples that they are measured on.

A probe hands over scores (Q,), one for each query, whose mean is the metric: whether a prediction is right, or for a
value that is no mean, such as an effective rank, its pseudo-values. Then the standard error of the value is that of a
mean, and two metrics of the same queries are compared pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_ROUNDING = 1e-12  # relative size of differences that are rounding, not an error


def standard_error(scores: Tensor) -> float | None:
    """Return the standard error of the mean of scores (Q,); None for less than two, or if it is not finite.

    For scores of 0 and 1 it is the binomial sqrt(p (1 - p) / Q). For others it is what a bootstrap over the queries
    converges to (Efron 1982, the bootstrap of a mean).
    """
    error = float(scores.double().std(correction=0) / len(scores) ** 0.5) if len(scores) > 1 else math.nan
    return error if math.isfinite(error) else None


def pseudo_values(statistic: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """Return (Q,) values whose mean is the statistic, and whose standard error is that of the statistic.

    This is the infinitesimal jackknife (Jaeckel 1972; Efron 1982, chapter 6). The bootstrap draws random weights of
    the queries; this is its error if the statistic is linear in them. It needs one gradient instead of hundreds of
    evaluations, and it repeats no query, which would lower a rank.

    Args:
        statistic: a smooth function of the queries' weights (Q,), float64, that only depends on their ratios.
        count: number of queries Q.
    """
    with torch.inference_mode(False), torch.enable_grad():
        weights = torch.ones(count, dtype=torch.float64, requires_grad=True)
        value = statistic(weights)
        (slope,) = torch.autograd.grad(value, weights)
    more = count * (slope - slope.mean())
    return value.detach() + torch.where(more.abs() < _ROUNDING * value.detach().abs(), 0.0, more)
