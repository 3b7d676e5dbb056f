"""Barlow Twins: the views' cross-correlation should be the identity (Zbontar et al. 2021, arXiv:2103.03230)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sslcli.config.ranges import Count, Depth, NotNegative
from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives.base import Objective, two_views
from sslcli.objectives.heads import Norm, mlp_head, widened
from sslcli.types import Loss


def barlow_twins(z1: Tensor, z2: Tensor, redundancy: float) -> tuple[Tensor, Tensor]:
    """Return the loss (equation 1) and the mean correlation of a dimension with itself in the other view.

    Args:
        z1: (N, D) embeddings of the first views; they are standardised here, over all N.
        z2: (N, D) embeddings of the second views; row i belongs to the same sample as row i of ``z1``.
        redundancy: weight of the squared correlations between different dimensions, the paper's lambda.
    """
    # The off-diagonal correlations are small and many, so they are always computed in float32 or better.
    with torch.autocast(z1.device.type, enabled=False):
        z1, z2 = (_standardised(widened(z)) for z in (z1, z2))
        correlation = z1.T @ z2 / len(z1)  # (D, D), in [-1, 1]
        diagonal = correlation.diagonal()
        off_diagonal = correlation.pow(2).sum() - diagonal.pow(2).sum()
        return (diagonal - 1).pow(2).sum() + redundancy * off_diagonal, diagonal.mean()


def _standardised(z: Tensor) -> Tensor:
    """Scale each column to mean 0 and variance 1 as BatchNorm without scale and shift does (biased variance)."""
    return (z - z.mean(dim=0)) * (z.var(dim=0, correction=0) + 1e-5).rsqrt()


class BarlowTwins(Objective):
    """Each dimension of the embedding should agree across the views and be uncorrelated with all others.

    Each view is a batch of its own for BatchNorm, as published.

    Args:
        encoder: the encoder to train.
        redundancy: weight of the correlations between different dimensions, the paper's lambda.
        hidden_dim: width of the projector's hidden layers.
        width: width of the embedding.
        depth: linear layers in the projector.
        norm: norm in the projector; ``batch`` as published, ``layer`` and ``none`` do not couple the batch.
        reads: the numbers of the two views that it compares; null is the first two.
    """

    couples_batch = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        redundancy: NotNegative = 0.005,
        hidden_dim: Count = 512,
        width: Count = 512,
        depth: Depth = 3,
        norm: Norm = "batch",
        reads: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.reads = two_views(reads)
        if redundancy < 0:
            raise ValueError(f"redundancy={redundancy} must not be negative; the paper uses 0.005")
        self.redundancy = redundancy
        self.width = width
        self.head = mlp_head(encoder.dim, hidden_dim, width, depth=depth, norm=norm, last_bias=False)

    def project(self, features: Features) -> dict[str, Tensor]:
        return {f"z{i + 1}": widened(self.head(features.clean(view)[0].pooled)) for i, view in enumerate(self.reads)}

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        total, correlation = barlow_twins(outputs["z1"], outputs["z2"], self.redundancy)
        return Loss(total, {"correlation": correlation.detach()}, self.chance(len(outputs["z1"])))

    def chance(self, batch_size: int) -> float | None:
        """Return the loss of a constant embedding, which correlates with nothing: 1 for each dimension."""
        return float(self.width)
