"""Estimates of mutual information, in nats, as functions of the scores of a critic.

Scores (N, N) contain f(x_i, y_j). P is the joint distribution, sampled by the diagonal; Q is the product of the
marginals, sampled by the N (N - 1) off-diagonal entries. Poole et al. 2019 (arXiv:1905.06922) compare the bias and
variance of most of these estimates; section numbers without a paper refer to it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def joint(scores: Tensor) -> Tensor:
    """Return E_P[f]."""
    return scores.diagonal().mean()


def off_diagonal(scores: Tensor) -> Tensor:
    """Return the off-diagonal scores (N - 1, N). After the first entry, every (N + 1)-th entry is on the diagonal."""
    n = len(scores)
    return scores.flatten()[1:].view(n - 1, n + 1)[:, :-1]


def log_mean_exp(values: Tensor) -> Tensor:
    """Return the log of the mean of e^v over all entries."""
    return values.flatten().logsumexp(0) - math.log(values.numel())


def info_nce(scores: Tensor) -> Tensor:
    """Return log N + E_P log softmax (InfoNCE), averaged over choosing y for x and choosing x for y."""
    pick_y, pick_x = scores.log_softmax(1).diagonal().mean(), scores.log_softmax(0).diagonal().mean()
    return math.log(len(scores)) + (pick_y + pick_x) / 2


def nwj(scores: Tensor) -> Tensor:
    """Return E_P[f] - E_Q[e^(f-1)] (Nguyen, Wainwright and Jordan 2010); the optimal f is 1 + log p/q."""
    return joint(scores) - log_mean_exp(off_diagonal(scores) - 1).exp()


def donsker_varadhan(scores: Tensor) -> Tensor:
    """Return E_P[f] - log E_Q[e^f] (Donsker and Varadhan 1983); the optimal f is log p/q + any constant."""
    return joint(scores) - log_mean_exp(off_diagonal(scores))


def jensen_shannon(scores: Tensor) -> Tensor:
    """Return E_P[-sp(-f)] - E_Q[sp(f)] (Hjelm et al. 2019, equation 4); the optimal f is log p/q.

    sp is softplus. The value is not an estimate of the mutual information.
    """
    return -F.softplus(-scores.diagonal()).mean() - F.softplus(off_diagonal(scores)).mean()


def smile(scores: Tensor, tau: float) -> Tensor:
    """Return E_P[f] - log E_Q[e^clip(f, -tau, tau)] (Song and Ermon 2020, arXiv:1910.06222)."""
    return joint(scores) - log_mean_exp(off_diagonal(scores).clamp(-tau, tau))


def interpolated(scores: Tensor, alpha: float) -> Tensor:
    """Return 1 + E_P[log e^f / a(y)] - E_Q[e^f / a(y)], a = alpha mean_i e^f(x_i, y) + (1 - alpha) e (section 2.3).

    alpha = 1 is InfoNCE, alpha -> 0 is NWJ. The mean in a is over K samples of x. They must include the x paired
    with y in the first term and must not in the second, and K must be the same. Here K = N - 1: the second term
    excludes the paired x, and the first excludes another one (the next row).
    """
    n = len(scores)
    paired = torch.eye(n, dtype=torch.bool, device=scores.device)
    with_pair = scores.masked_fill(paired.roll(1, 0), -math.inf).logsumexp(0) - math.log(n - 1)
    without = scores.masked_fill(paired, -math.inf).logsumexp(0) - math.log(n - 1)

    def log_a(log_mean: Tensor) -> Tensor:
        if alpha == 1:
            return log_mean
        return torch.logaddexp(log_mean + math.log(alpha), log_mean.new_full((), math.log1p(-alpha) + 1))

    return 1 + (scores.diagonal() - log_a(with_pair)).mean() - (without - log_a(without)).exp().mean()
