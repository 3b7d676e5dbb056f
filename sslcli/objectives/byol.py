"""BYOL (Grill et al. 2020, arXiv:2006.07733): predict the teacher's embedding of the other view, no negatives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.config.ranges import Count, Depth, Share
from sslcli.encoders.base import Encoder
from sslcli.objectives.heads import Norm, widened
from sslcli.objectives.momentum_predictor import MomentumPredictor
from sslcli.objectives.multi_crop import with_local
from sslcli.types import Loss


def byol(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean of 2 - 2 cos(prediction, target) over rows (N, D), in [0, 4] (equation 2)."""
    with torch.autocast(prediction.device.type, enabled=False):
        return 2 - 2 * F.cosine_similarity(widened(prediction), widened(target), dim=1).mean()


class BYOL(MomentumPredictor):
    """The losses of both directions, summed. The predictor and the slow teacher prevent collapse.

    With L small views q_l: (full + sum_l (byol(q_l, k1) + byol(q_l, k2))) / (1 + L).

    Args:
        encoder: the encoder to train.
        momentum: momentum of the teacher at the start; it rises to 1 along half a cosine.
        hidden_dim: width of the hidden layers of projector and predictor.
        width: width of the embedding.
        depth: linear layers of the projector.
        norm: norm in both heads; ``batch`` as published, ``layer`` and ``none`` do not couple the batch.
        reads: the numbers of the two views that it compares; null is the first two.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        momentum: Share = 0.99,
        hidden_dim: Count = 512,
        width: Count = 128,
        depth: Depth = 2,
        norm: Norm = "batch",
        reads: list[int] | None = None,
    ) -> None:
        super().__init__(
            encoder,
            momentum=momentum,
            hidden_dim=hidden_dim,
            width=width,
            depth=depth,
            norm=norm,
            projector_norm=False,
            predictor_norm=False,
            last_bias=True,
            reads=reads,
        )

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        q1, q2, k1, k2 = (outputs[name] for name in ("q1", "q2", "k1", "k2"))
        std = F.normalize(k1, dim=1).std(0).mean()
        total = with_local(byol(q1, k2) + byol(q2, k1), outputs.get("local"), (k1, k2), byol)
        return Loss(total, {"embedding_std": std})
