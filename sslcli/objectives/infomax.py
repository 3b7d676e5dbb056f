"""Maximise an estimate of the mutual information between two representations of a sample (Hjelm et al. 2019).

Where "SimMIM" stands for mutual information maximisation, this is the objective that is meant.

I(X; f(X)) itself is not maximised: f is deterministic, so it is infinite for continuous X, and over a training set
it is the log of the set's size for any injective f, trained or not. The objective is a finite quantity below it: the
information between two random views, I(f(V1); f(V2)) <= I(X; f(V1)) as both are made from X, or across a noisy channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.config.ranges import Count, Depth, Positive, Share, TemperatureValue
from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives.base import Objective, two_views
from sslcli.objectives.heads import Norm, mlp_head, widened
from sslcli.objectives.losses.critics import Bilinear, Concat, Cosine, Critic, Separable
from sslcli.objectives.losses.densities import BarberAgakov, DensityEstimator, Gaussian
from sslcli.objectives.losses.estimators import DV, JSD, MINE, NWJ, SMILE, Estimate, Estimator, InfoNCE, Interpolated
from sslcli.randomness import Randomness
from sslcli.types import Encoded, Loss


class Infomax(Objective):
    """Maximise an estimate of the mutual information between two embeddings of a sample, each of norm sqrt(width).

    ``pairs`` selects the two embeddings. ``views``: the two views. ``local``: ``locations`` random tokens of one view,
    each paired with the pooled other view, in both directions (Deep InfoMax across views). ``noise``: the second
    view, and the first plus ``sigma`` times a standard normal vector, a channel with a capacity of
    width/2 log(1 + 1/sigma^2) nats.

    The logged ``estimate`` is computed on training batches, where BatchNorm may leak information: it is not a bound.
    Its ``ceiling``, from the number of pairs, and ``cosine_ceiling``, from the temperature, are logged with it where
    they hold for every batch. ``capacity`` bounds the information, and an estimate only if the estimate is a bound.

    Args:
        encoder: the encoder to train.
        estimator: gaussian and barber_agakov model the embeddings; the others need a critic.
        critic: critic of pairs of embeddings; null is cosine where the estimator needs one.
        pairs: views, local or noise.
        temperature: temperature of the cosine critic.
        sigma: standard deviation of the noise; the embeddings have unit mean square.
        tau: clipping threshold of smile.
        alpha: share of InfoNCE in interpolated.
        momentum: momentum of mine's moving average.
        shrinkage: shrinkage of the covariances of gaussian and barber_agakov.
        locations: number of tokens per view and sample.
        hidden_dim: width of the hidden layers of projectors, critics and barber_agakov's q.
        width: width of the embeddings.
        depth: linear layers in the projectors.
        norm: norm in the projectors; ``layer`` and ``none`` do not couple the batch.
        reads: the numbers of the two views that it compares; null is the first two.
    """

    couples_batch = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        estimator: Literal[
            "infonce", "jsd", "nwj", "smile", "dv", "mine", "interpolated", "gaussian", "barber_agakov"
        ] = "infonce",
        critic: Literal["cosine", "separable", "bilinear", "concat"] | None = None,
        pairs: Literal["views", "local", "noise"] = "views",
        temperature: TemperatureValue = 0.2,
        sigma: Positive = 0.3,
        tau: Positive = 5.0,
        alpha: float = 0.01,
        momentum: Share = 0.9,
        shrinkage: float = 0.1,
        locations: Count = 4,
        hidden_dim: Count = 256,
        width: Count = 128,
        depth: Depth = 3,
        norm: Norm = "batch",
        reads: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.reads = two_views(reads)
        positive = {"temperature": temperature, "sigma": sigma, "locations": locations, "shrinkage": shrinkage}
        for name, value in positive.items():
            if value <= 0:  # without shrinkage, covariances of small batches are singular
                raise ValueError(f"{name}={value} must be positive")
        if width < 2:
            raise ValueError(f"width={width}: embeddings of one length need at least 2 dimensions")
        if pairs == "local" and not encoder.token_dim:
            raise ValueError("pairs=local compares tokens; this encoder has no image tokens (use pairs=views)")
        self.pairs, self.locations, self.width = pairs, locations, width
        self.sigma, self.temperature = sigma, temperature
        scored: dict[str, Estimator] = {
            "infonce": InfoNCE(), "jsd": JSD(), "nwj": NWJ(), "smile": SMILE(tau=tau), "dv": DV(),
            "mine": MINE(momentum=momentum), "interpolated": Interpolated(alpha=alpha),
        }  # fmt: skip
        self.estimator: Estimator | DensityEstimator
        self.critic: Critic | None = None
        if estimator in scored:
            self.estimator = scored[estimator]
            self.critic = _critic(critic or "cosine", width, hidden_dim, temperature, self.estimator.needs_level)
        elif critic is not None:
            raise ValueError(f"estimator={estimator} models the embeddings themselves; leave critic=null")
        elif estimator == "gaussian":
            self.estimator = Gaussian(shrinkage=shrinkage)
        else:
            self.estimator = BarberAgakov(width, hidden_dim=hidden_dim, shrinkage=shrinkage)
        self.head = mlp_head(encoder.dim, hidden_dim, width, depth=depth, norm=norm)
        self.token_head: nn.Module | None = None
        if pairs == "local":
            self.token_head = mlp_head(encoder.token_dim, hidden_dim, width, depth=depth, norm=norm)

    def project(self, features: Features) -> dict[str, Tensor]:
        views = features.clean(*self.reads)
        z1, z2 = self._unit(self.head(torch.cat([view.pooled for view in views]))).chunk(2)
        if self.pairs == "noise":
            z1 = z1 + self.sigma * normal(features.randomness, "infomax noise", self.width)
        outputs = {"z1": z1, "z2": z2}
        if self.token_head is not None:
            drawn = [sampled(view, features.randomness, f"tokens {i}", self.locations) for i, view in enumerate(views)]
            tokens = self._unit(self.token_head(torch.cat(drawn).flatten(0, 1)))
            outputs["tokens1"], outputs["tokens2"] = tokens.unflatten(0, (-1, self.locations)).chunk(2)
        return outputs

    def _unit(self, z: Tensor) -> Tensor:
        """Scale rows (B, width) to mean square 1, so that 1 / sigma^2 is the signal-to-noise ratio."""
        return F.normalize(widened(z), dim=1) * math.sqrt(self.width)

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        estimates = [self._estimate(x, y) for x, y in self._paired(outputs)]
        total = torch.stack([estimate.loss for estimate in estimates]).mean()
        parts = {"estimate": torch.stack([estimate.nats for estimate in estimates]).mean()}
        n = len(outputs["z1"])
        parts |= {name: total.new_full((), value) for name, value in self._ceilings(n).items() if value is not None}
        return Loss(total, parts, self.chance(n))

    def _paired(self, outputs: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        if self.pairs != "local":
            return [(outputs["z1"], outputs["z2"])]
        directions = (outputs["tokens1"], outputs["z2"]), (outputs["tokens2"], outputs["z1"])
        return [(tokens[:, k], pooled) for tokens, pooled in directions for k in range(self.locations)]

    def _estimate(self, x: Tensor, y: Tensor) -> Estimate:
        return self.estimator(x, y) if self.critic is None else self.estimator(self.critic(x, y))

    def _ceilings(self, n: int) -> dict[str, float | None]:
        ceilings: dict[str, float | None] = {}
        if isinstance(self.estimator, Estimator):
            ceilings["ceiling"] = self.estimator.ceiling(n)
            if isinstance(self.critic, Cosine):
                ceilings["cosine_ceiling"] = self.estimator.cosine_ceiling(n, self.temperature)
        if self.pairs == "noise":
            ceilings["capacity"] = self.width / 2 * math.log1p(1 / self.sigma**2)
        return ceilings

    @torch.no_grad()
    def after_step(self, outputs: Mapping[str, Tensor]) -> None:
        """Update mine's moving average once, with the updated critic on the batch of this step."""
        if isinstance(self.estimator, MINE) and self.critic is not None:
            self.estimator.update([self.critic(x, y) for x, y in self._paired(outputs)])

    def chance(self, batch_size: int) -> float | None:
        return self.estimator.chance(batch_size) if isinstance(self.estimator, Estimator) else None


def _critic(name: str, width: int, hidden_dim: int, temperature: float, level: bool) -> Critic:
    critics: dict[str, Critic] = {
        "cosine": Cosine(temperature=temperature, offset=level),
        "separable": Separable(width, hidden_dim=hidden_dim),
        "bilinear": Bilinear(width),
        "concat": Concat(width, hidden_dim=hidden_dim),
    }
    return critics[name]


def normal(randomness: Randomness, name: str, dim: int) -> Tensor:
    """Draw (B, dim) standard normal numbers by the Box-Muller transform; 1 - u is never 0."""
    u, v = randomness.uniform(name, 2, dim).unbind(1)
    return (-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()


def sampled(view: Encoded, randomness: Randomness, name: str, count: int) -> Tensor:
    """Draw (B, count, token_dim) tokens at random positions with replacement, never padding."""
    tokens = view.tokens
    valid = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device) if view.valid is None else view.valid
    order = valid.int().argsort(stable=True, dim=1, descending=True)  # the valid ones first
    picks = (randomness.uniform(name, count) * valid.sum(1, keepdim=True)).long()
    index = order.gather(1, picks.clamp(max=tokens.shape[1] - 1))
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))
