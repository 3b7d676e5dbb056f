"""NT-Xent, the InfoNCE loss of SimCLR (Chen et al. 2020, equation 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives.base import Objective
from sslcli.objectives.heads import Norm, mlp_head
from sslcli.types import Loss


def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Mean over all 2N anchors of -log softmax of the positive among the 2N - 1 other views.

    Args:
        z1: (N, D) embeddings of the first views, of any length; they are normalised here.
        z2: (N, D) embeddings of the second views, row by row the positives of ``z1``.
        temperature: divides the cosine similarities.
    """
    # Logits at temperature 0.07 reach 14, where half precision is off by 0.06: float32 or better, always.
    with torch.autocast(z1.device.type, enabled=False):
        z = F.normalize(torch.cat([z1, z2]).to(torch.promote_types(z1.dtype, torch.float32)), dim=1)
        logits = (z @ z.T / temperature).fill_diagonal_(-math.inf)
        n = len(z1)
        positive = torch.arange(2 * n, device=z.device).roll(n)
        return F.cross_entropy(logits, positive)


class InfoNCE(Objective):
    """Pull the views of one sample together and push the views of others away.

    Both views go through the encoder as one batch, so its BatchNorm sees them together.

    Args:
        encoder: what is trained.
        temperature: of the softmax over cosine similarities.
        hidden_dim: width of the projector's hidden layers.
        width: width of the embedding.
        depth: linear layers in the projector.
        norm: in the projector; ``batch`` as published, ``layer`` and ``none`` do not couple the batch.
    """

    couples_batch = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        hidden_dim: int = 256,
        width: int = 128,
        depth: int = 2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be positive; 0.1 to 0.5 is usual")
        self.temperature = temperature
        self.head = mlp_head(encoder.dim, hidden_dim, width, depth=depth, norm=norm)

    def project(self, features: Features) -> dict[str, Tensor]:
        pooled = torch.cat([encoded.pooled for encoded in features.clean(0, 1)])
        z1, z2 = F.normalize(self.head(pooled).float(), dim=1).chunk(2)
        return {"z1": z1, "z2": z2}

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        z1, z2 = outputs["z1"], outputs["z2"]
        total = nt_xent(z1, z2, self.temperature)
        similarity = (z1.detach() * z2.detach()).sum(1).mean()
        return Loss(total, {"positive_similarity": similarity})

    def chance(self, batch_size: int) -> float | None:
        return math.log(2 * batch_size - 1)
