"""Estimates of mutual information, in nats, as functions of the scores of a critic.

Scores (N, N) hold f(x_i, y_j). P is the joint law, read from the diagonal; Q is the product of the
marginals, read from the N (N - 1) entries beside it. Most are gathered, and ordered by bias and variance, in
Poole et al. 2019 (arXiv:1905.06922), whose sections are meant where no paper is named.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def joint(scores: Tensor) -> Tensor:
    """E_P[f]."""
    return scores.diagonal().mean()


def off_diagonal(scores: Tensor) -> Tensor:
    """(N - 1, N): the scores under Q. Without the first entry, each run of N + 1 ends on the diagonal."""
    n = len(scores)
    return scores.flatten()[1:].view(n - 1, n + 1)[:, :-1]


def log_mean_exp(values: Tensor) -> Tensor:
    """Log of the mean of e^v over all entries."""
    return values.flatten().logsumexp(0) - math.log(values.numel())


def info_nce(scores: Tensor) -> Tensor:
    """Log N + E_P log softmax (InfoNCE), the mean of picking y for x and picking x for y."""
    pick_y, pick_x = scores.log_softmax(1).diagonal().mean(), scores.log_softmax(0).diagonal().mean()
    return math.log(len(scores)) + (pick_y + pick_x) / 2


def nwj(scores: Tensor) -> Tensor:
    """E_P[f] - E_Q[e^(f-1)] (Nguyen, Wainwright and Jordan 2010); best at f = 1 + log p/q."""
    return joint(scores) - log_mean_exp(off_diagonal(scores) - 1).exp()


def donsker_varadhan(scores: Tensor) -> Tensor:
    """E_P[f] - log E_Q[e^f] (Donsker and Varadhan 1983); best at f = log p/q + any constant."""
    return joint(scores) - log_mean_exp(off_diagonal(scores))


def jensen_shannon(scores: Tensor) -> Tensor:
    """E_P[-sp(-f)] - E_Q[sp(f)] (Hjelm et al. 2019, equation 4): not nats of information; best at f = log p/q."""
    return -F.softplus(-scores.diagonal()).mean() - F.softplus(off_diagonal(scores)).mean()


def smile(scores: Tensor, tau: float) -> Tensor:
    """E_P[f] - log E_Q[e^clip(f, -tau, tau)] (Song and Ermon 2020, arXiv:1910.06222)."""
    return joint(scores) - log_mean_exp(off_diagonal(scores).clamp(-tau, tau))


def interpolated(scores: Tensor, alpha: float) -> Tensor:
    """1 + E_P[log e^f / a(y)] - E_Q[e^f / a(y)], a = alpha mean_i e^f(x_i, y) + (1 - alpha) e (section 2.3).

    alpha = 1 is InfoNCE, alpha -> 0 is NWJ. The bound asks for the same a in both terms: a mean over K samples
    of x that holds y's own partner in the first and not in the second. K = N - 1 in both: the second leaves the
    partner out, the first leaves out a neighbour.
    """
    n = len(scores)
    own = torch.eye(n, dtype=torch.bool, device=scores.device)
    with_partner = scores.masked_fill(own.roll(1, 0), -math.inf).logsumexp(0) - math.log(n - 1)
    without = scores.masked_fill(own, -math.inf).logsumexp(0) - math.log(n - 1)

    def log_a(log_mean: Tensor) -> Tensor:
        if alpha == 1:
            return log_mean
        return torch.logaddexp(log_mean + math.log(alpha), log_mean.new_full((), math.log1p(-alpha) + 1))

    return 1 + (scores.diagonal() - log_a(with_partner)).mean() - (without - log_a(without)).exp().mean()
