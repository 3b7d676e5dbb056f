"""Estimates of mutual information as one score a pair, whose mean is the estimate, and the bias of the Gaussian one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslcli.evaluation.standard_errors import pseudo_values
from sslcli.objectives.losses.densities import log_det

SHRINKAGE = 1e-3  # of the covariances, which redundant features make singular


def info_nce_scores(scores: Tensor) -> Tensor:
    """Return ``info_nce`` of a critic's scores (N, N), as scores of the pairs (N,)."""
    scores = scores.cpu().double()

    def value(weights: Tensor) -> Tensor:
        share = weights / weights.sum()
        picked = [each.diagonal() - (each + share.log()).logsumexp(1) for each in (scores, scores.T)]
        return share @ (picked[0] + picked[1]) / 2

    return pseudo_values(value, len(scores))


def club_scores(log_q: Tensor) -> Tensor:
    """Return ``club`` of log q(y_j | x_i), (N, N), as scores of the pairs (N,)."""
    log_q = log_q.cpu().double()

    def value(weights: Tensor) -> Tensor:
        pairs = (weights[:, None] * weights).fill_diagonal_(0)
        return weights @ log_q.diagonal() / weights.sum() - (pairs * log_q).sum() / pairs.sum()

    return pseudo_values(value, len(log_q))


def gaussian_scores(x: Tensor, y: Tensor) -> Tensor | float:
    """Return ``gaussian_information`` of x and y (N, D), as scores of the pairs where it has a gradient."""
    rows = torch.cat([x, y], 1).cpu().double()

    def value(weights: Tensor) -> Tensor:
        share = (weights / weights.sum())[:, None]
        centred = share.sqrt() * (rows - (share * rows).sum(0))
        both = (1 - SHRINKAGE) * len(rows) / (len(rows) - 1) * centred.T @ centred
        parts = [both[: x.shape[1], : x.shape[1]], both[x.shape[1] :, x.shape[1] :]]
        level = [part.trace() / len(part) * SHRINKAGE / (1 - SHRINKAGE) for part in parts]
        shrunk = [part + each * torch.eye(len(part), dtype=part.dtype) for part, each in zip(parts, level)]
        joint = both + torch.stack(level).repeat_interleave(x.shape[1]).diag()
        return (log_det(shrunk[0]) + log_det(shrunk[1]) - log_det(joint)) / 2

    scores = pseudo_values(value, len(rows))
    return scores if scores.isfinite().all() else float(value(torch.ones(len(rows), dtype=torch.float64)))


def gaussian_bias(count: int, dim: int) -> float:
    """Return how far the estimate lies above the truth on average, for ``count`` Gaussian pairs (dim,), (dim,).

    The log determinant of a Gaussian sample covariance of p values with n degrees of freedom lies on average
    sum_(j = 1..p) digamma((n - j + 1) / 2) + log(2 / n) above that of the true one (Wishart; Goodman 1963, as in
    Misra, Singh and Demchuk 2005, equation 2), whatever the truth. About dim^2 / (2 count) where that is small;
    infinite unless count is more than 2 dim, as then the pairs are correlated perfectly in some directions.
    """
    free = count - 1
    if free < 2 * dim:
        return math.inf

    def above(width: int) -> float:
        j = torch.arange(1, width + 1, dtype=torch.float64)
        return float((torch.digamma((free - j + 1) / 2) + math.log(2 / free)).sum())

    return above(dim) - above(2 * dim) / 2
