"""VICReg: variance, invariance and covariance (Bardes et al. 2021, arXiv:2105.04906, equations 1 to 6)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.config.ranges import Count, Depth, NotNegative
from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives.base import Objective, two_views
from sslcli.objectives.heads import Norm, mlp_head, widened
from sslcli.types import Loss


def vicreg(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three terms, unweighted: invariance, variance and covariance.

    Equation 6 sums the variance terms of the two views. The official code takes their mean, and its weights of 25, 25
    and 1 belong to the mean, which is used here too. The covariance terms of the two views are summed.

    Args:
        z1: (N, D) embeddings of the first views, N at least 2: the estimates of variance divide by N - 1.
        z2: (N, D) embeddings of the second views; row i belongs to the same sample as row i of ``z1``.
    """
    # Half precision would lose small covariances among large ones, so this is always float32 or better.
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = widened(z1), widened(z2)
        invariance = F.mse_loss(z1, z2)
        return invariance, (_variance(z1) + _variance(z2)) / 2, _covariance(z1) + _covariance(z2)


def _variance(z: Tensor) -> Tensor:
    """Return the mean over dimensions of max(0, 1 - std) (equations 1 and 2); 0.99 for constant rows."""
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def _covariance(z: Tensor) -> Tensor:
    """Return the sum of squared covariances between different dimensions, divided by D (equations 3 and 4)."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / z.shape[1]


class VICReg(Objective):
    """Pull the views of a sample together; keep the variance of each dimension, and decorrelate the dimensions.

    Each view is a batch of its own for BatchNorm, as published.

    Args:
        encoder: the encoder to train.
        invariance: weight of the squared distance between views.
        variance: weight of the variance term, which is positive where a std is below 1.
        covariance: weight of the squared covariances.
        hidden_dim: width of the expander's hidden layers.
        width: width of the embedding.
        depth: linear layers in the expander.
        norm: norm in the expander; ``batch`` as published, ``layer`` and ``none`` do not couple the batch.
        reads: the numbers of the two views that it compares; null is the first two.
    """

    couples_batch = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        invariance: NotNegative = 25.0,
        variance: NotNegative = 25.0,
        covariance: NotNegative = 1.0,
        hidden_dim: Count = 512,
        width: Count = 512,
        depth: Depth = 3,
        norm: Norm = "batch",
        reads: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.reads = two_views(reads)
        if min(invariance, variance, covariance) < 0:
            raise ValueError("the weights invariance, variance and covariance must not be negative")
        self.weights = (invariance, variance, covariance)
        self.head = mlp_head(encoder.dim, hidden_dim, width, depth=depth, norm=norm, last_bias=False)

    def project(self, features: Features) -> dict[str, Tensor]:
        return {f"z{i + 1}": widened(self.head(features.clean(view)[0].pooled)) for i, view in enumerate(self.reads)}

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        terms = vicreg(outputs["z1"], outputs["z2"])
        total = torch.stack([weight * term for weight, term in zip(self.weights, terms)]).sum()
        parts = {name: term.detach() for name, term in zip(("invariance", "variance", "covariance"), terms)}
        return Loss(total, parts, self.chance(len(outputs["z1"])))

    def chance(self, batch_size: int) -> float | None:
        """Return the loss of a constant embedding: only the variance term is not 0, and each std counts as 0.01."""
        return 0.99 * self.weights[1]
