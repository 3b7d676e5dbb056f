"""Estimators of mutual information, in nats, from the scores of a critic.

Scores (N, N) hold f(x_i, y_j). P is the joint law, read from the diagonal; Q is the product of the
marginals, read from the N (N - 1) entries beside it. Most are gathered, and ordered by bias and variance, in
Poole et al. 2019 (arXiv:1905.06922), whose sections are meant where no paper is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.objectives.heads import widened


@dataclass
class Estimate:
    """What to descend, and what it says."""

    loss: Tensor  # scalar with a gradient
    nats: Tensor  # detached scalar: the estimate of the mutual information


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


class Estimator(nn.Module):
    """An estimate from scores, what bounds it, and the loss of a critic that knows nothing.

    The ceilings hold for every batch, whatever the critic and however much information there is.
    """

    needs_level = False  # whether adding a constant to the critic changes the loss

    def forward(self, scores: Tensor) -> Estimate:
        """The loss and the estimate of a batch; scores (N, N), N at least 2."""
        scores = widened(scores)
        value = self.value(scores)
        return Estimate(-value, value.detach())

    def value(self, scores: Tensor) -> Tensor:
        """The estimate in nats."""
        raise NotImplementedError

    def update(self, scores: Sequence[Tensor]) -> None:
        """Called once after a weight update with the score matrices of its batch."""

    def ceiling(self, n: int) -> float | None:
        """The largest value on n pairs that any critic reaches."""
        return None

    def cosine_ceiling(self, n: int, temperature: float) -> float | None:
        """The largest value on n pairs that cosines over a temperature reach.

        For unit rows z, w the mean of s_ij - s_ii over j != i is -n/(n-1) mean (z_i - mean z).(w_i - mean w),
        and so at least -n/(n-1); with Jensen's inequality log E_Q[e^f] >= E_Q[f], DV is at most n/((n-1) T).
        A simplex of n corners attains it.
        """
        return None

    def chance(self, n: int) -> float:
        """The loss where x and y are independent and the critic knows it."""
        return 0.0


class InfoNCE(Estimator):
    """A lower bound in expectation for independent pairs, never above log N; little variance, much bias beyond."""

    def forward(self, scores: Tensor) -> Estimate:
        """The loss is the cross-entropy log N - estimate."""
        scores = widened(scores)
        value = info_nce(scores)
        return Estimate(math.log(len(scores)) - value, value.detach())

    def ceiling(self, n: int) -> float | None:
        return math.log(n)

    def cosine_ceiling(self, n: int, temperature: float) -> float | None:
        return math.log(n) - math.log1p((n - 1) * math.exp(-n / ((n - 1) * temperature)))

    def chance(self, n: int) -> float:
        return math.log(n)


class NWJ(Estimator):
    """A lower bound in expectation without a ceiling; its variance grows as e^I."""

    needs_level = True

    def value(self, scores: Tensor) -> Tensor:
        return nwj(scores)

    def cosine_ceiling(self, n: int, temperature: float) -> float | None:
        return n / ((n - 1) * temperature)  # below DV for any critic, since log u <= u/e


class DV(Estimator):
    """The plug-in of a bound: the log of a sample mean is too small on average, so it bounds neither way."""

    def value(self, scores: Tensor) -> Tensor:
        return donsker_varadhan(scores)

    def cosine_ceiling(self, n: int, temperature: float) -> float | None:
        return n / ((n - 1) * temperature)


class MINE(DV):
    """DV's value, with the gradient's denominator E_Q[e^f] averaged over steps (Belghazi et al. 2018, section 3.2).

    The loss is the bound with a constant baseline a (TUBA), E_P[f] - E_Q[e^f]/a - log a + 1, and a
    the moving average with this batch in it: a function of state and batch, whatever is evaluated meanwhile.

    Args:
        momentum: share of the past in the moving average.
    """

    log_mean: Tensor  # log of the average of E_Q[e^f] so far
    weight: Tensor  # 1 - momentum^steps, which corrects an average that began at 0

    def __init__(self, *, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} must be at least 0 and below 1")
        self.momentum = momentum
        self.register_buffer("log_mean", torch.zeros(()))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, scores: Tensor) -> Estimate:
        scores = widened(scores)
        log_mean = log_mean_exp(off_diagonal(scores))
        log_a = self._moved(log_mean.detach())[0]
        loss = log_a + (log_mean - log_a).exp() - 1 - joint(scores)
        return Estimate(loss, (joint(scores) - log_mean).detach())

    def _moved(self, log_mean: Tensor) -> tuple[Tensor, Tensor]:
        """The average and its weight with one more value; in logs, where e^f cannot overflow."""
        kept = self.momentum * self.weight
        weight = kept + 1 - self.momentum
        total = torch.logaddexp(self.log_mean + kept.log(), log_mean + math.log(1 - self.momentum))
        return total - weight.log(), weight

    @torch.no_grad()
    def update(self, scores: Sequence[Tensor]) -> None:
        means = torch.stack([log_mean_exp(off_diagonal(widened(s))) for s in scores])
        log_mean, weight = self._moved(log_mean_exp(means))
        self.log_mean.copy_(log_mean)
        self.weight.copy_(weight)


class JSD(Estimator):
    """The critic learns by the Jensen-Shannon divergence, as calm as classification; the value is NWJ at f + 1.

    At its optimum f = log p/q; NWJ's is one above. Without the + 1 the value would end at I - 1/e.
    """

    needs_level = True

    def forward(self, scores: Tensor) -> Estimate:
        scores = widened(scores)
        return Estimate(-jensen_shannon(scores), self.value(scores).detach())

    def value(self, scores: Tensor) -> Tensor:
        return nwj(scores + 1)

    def cosine_ceiling(self, n: int, temperature: float) -> float | None:
        return n / ((n - 1) * temperature)

    def chance(self, n: int) -> float:
        return 2 * math.log(2)


class SMILE(JSD):
    """JSD's gradient with DV's value at clipped scores: no bound; tau trades variance for bias.

    Args:
        tau: scores under Q count as at most tau nats from 0.
    """

    def __init__(self, *, tau: float = 5.0) -> None:
        super().__init__()
        if tau <= 0:
            raise ValueError(f"tau={tau} must be positive; 1 to 10 is usual")
        self.tau = tau

    def value(self, scores: Tensor) -> Tensor:
        return smile(scores, self.tau)

    def cosine_ceiling(self, n: int, temperature: float) -> float | None:
        return None


class Interpolated(Estimator):
    """A lower bound in expectation between NWJ and InfoNCE.

    Its first term is at most log((N-1)/alpha) and its last may vanish, so 1 + log((N-1)/alpha) is the ceiling
    (critics that are 0 but on their partners reach it); at alpha = 1 the last term is 1.

    Args:
        alpha: share of InfoNCE's baseline, in (0, 1].
    """

    needs_level = True

    def __init__(self, *, alpha: float = 0.01) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha={alpha} must be above 0 and at most 1")
        self.alpha = alpha

    def value(self, scores: Tensor) -> Tensor:
        return interpolated(scores, self.alpha)

    def ceiling(self, n: int) -> float | None:
        return math.log((n - 1) / self.alpha) + (self.alpha < 1)
