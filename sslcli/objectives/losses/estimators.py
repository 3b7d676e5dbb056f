"""Estimators of mutual information in nats: the estimate, its largest possible value, and the loss to minimise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslcli.objectives.heads import widened
from sslcli.objectives.losses.estimates import (
    donsker_varadhan,
    info_nce,
    interpolated,
    jensen_shannon,
    joint,
    log_mean_exp,
    nwj,
    off_diagonal,
    smile,
)


@dataclass
class Estimate:
    """The loss of a batch and its estimate of the mutual information."""

    loss: Tensor  # scalar with a gradient
    nats: Tensor  # detached scalar: the estimate of the mutual information


class Estimator(nn.Module):
    """An estimate from scores, its largest possible values (ceilings), and the loss at chance level.

    The ceilings hold for every batch, for any critic and any amount of information.
    """

    needs_level = False  # whether adding a constant to the critic changes the loss

    def forward(self, scores: Tensor) -> Estimate:
        """Return the loss and the estimate of a batch from scores (N, N), N at least 2."""
        scores = widened(scores)
        value = self.value(scores)
        return Estimate(-value, value.detach())

    def value(self, scores: Tensor) -> Tensor:
        """Return the estimate in nats."""
        raise NotImplementedError

    def update(self, scores: Sequence[Tensor]) -> None:
        """Update the estimator's state; called once after each weight update with the score matrices of its batch."""

    def ceiling(self, n: int) -> float | None:
        """Return the largest value that any critic can reach on n pairs; None if there is none."""
        return None

    def cosine_ceiling(self, n: int, temperature: float) -> float | None:
        """Return the largest value that a cosine critic of this temperature can reach on n pairs; None if unknown.

        For unit rows z, w the mean of s_ij - s_ii over j != i is -n/(n-1) mean (z_i - mean z).(w_i - mean w),
        and so at least -n/(n-1); with Jensen's inequality log E_Q[e^f] >= E_Q[f], DV is at most n/((n-1) T).
        A regular simplex with n vertices attains it.
        """
        return None

    def chance(self, n: int) -> float:
        """Return the loss of the optimal critic for independent x and y."""
        return 0.0


class InfoNCE(Estimator):
    """A lower bound in expectation for i.i.d. pairs, at most log N: low variance, large bias if I exceeds log N."""

    def forward(self, scores: Tensor) -> Estimate:
        """Return the cross-entropy log N - estimate as the loss, and the estimate."""
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
        return n / ((n - 1) * temperature)  # at most DV for any critic, since log u <= u/e


class DV(Estimator):
    """The plug-in estimate of a lower bound; not itself a bound, as the log of a sample mean is biased downwards."""

    def value(self, scores: Tensor) -> Tensor:
        return donsker_varadhan(scores)

    def cosine_ceiling(self, n: int, temperature: float) -> float | None:
        return n / ((n - 1) * temperature)


class MINE(DV):
    """DV's value, with the gradient's denominator E_Q[e^f] averaged over steps (Belghazi et al. 2018, section 3.2).

    The loss is minus the bound with a constant baseline a (TUBA), E_P[f] - E_Q[e^f]/a - log a + 1. Here a is the
    moving average including this batch. It depends on state and batch only, so evaluations do not change it.

    Args:
        momentum: weight of the past in the moving average.
    """

    log_mean: Tensor  # log of the moving average of E_Q[e^f]
    weight: Tensor  # 1 - momentum^steps, the bias correction of an average that began at 0

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
        """Return the log average and its weight after one more value; in logs, so that e^f cannot overflow."""
        decayed = self.momentum * self.weight
        weight = decayed + 1 - self.momentum
        total = torch.logaddexp(self.log_mean + decayed.log(), log_mean + math.log(1 - self.momentum))
        return total - weight.log(), weight

    @torch.no_grad()
    def update(self, scores: Sequence[Tensor]) -> None:
        means = torch.stack([log_mean_exp(off_diagonal(widened(s))) for s in scores])
        log_mean, weight = self._moved(log_mean_exp(means))
        self.log_mean.copy_(log_mean)
        self.weight.copy_(weight)


class JSD(Estimator):
    """Train the critic by the Jensen-Shannon divergence, with low variance, and estimate by NWJ at f + 1.

    The optimal critic of this divergence is f = log p/q, and NWJ's is 1 + log p/q; without the + 1 the value would
    tend to I - 1/e.
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
    """JSD's gradient with DV's value at clipped scores; it is not a bound, and tau trades variance for bias.

    Args:
        tau: scores under Q are clipped to [-tau, tau].
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

    Its first term is at most log((N-1)/alpha) and its last is at least 0, so the ceiling is 1 + log((N-1)/alpha)
    (approached by critics that are large on the diagonal and small elsewhere); at alpha = 1 the last term is 1.

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
