"""SimSiam: no negatives, no momentum encoder, a stop-gradient (Chen and He 2020, arXiv:2011.10566)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.config.ranges import Count, Depth
from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives.base import Objective, two_views
from sslcli.objectives.heads import Norm, mlp_head, widened
from sslcli.objectives.multi_crop import local_rows, with_local
from sslcli.types import Loss


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Return minus the mean cosine of p and z (equation 1); no gradient reaches z.

    Args:
        p: (N, D) predictions of any norm.
        z: (N, D) targets.
    """
    with torch.autocast(p.device.type, enabled=False):
        return -F.cosine_similarity(widened(p), widened(z.detach()), dim=1).mean()


class SimSiam(Objective):
    """Predict each view's projection from the other's, through a bottleneck; the target has no gradient.

    The published recipe keeps the predictor's learning rate constant; here it follows the schedule.
    Each view is a batch of its own for BatchNorm, as published. Small views (multi-crop) are one batch; with the
    predictions p_l of L small views the loss is (full + sum_l (D(p_l, z1) + D(p_l, z2)) / 2) / (1 + L).

    Args:
        encoder: the encoder to train.
        hidden_dim: width of the projector's hidden layers.
        width: width of the projection.
        depth: linear layers in the projector, whose last norm has no scale and shift.
        bottleneck: width of the predictor's hidden layer, a quarter of ``width`` as published.
        norm: norm in both heads; ``batch`` as published, ``layer`` and ``none`` do not couple the batch.
        reads: the numbers of the two views that it compares; null is the first two.
    """

    takes_local = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden_dim: Count = 512,
        width: Count = 512,
        depth: Depth = 3,
        bottleneck: Count = 128,
        norm: Norm = "batch",
        reads: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.reads = two_views(reads)
        self.head = mlp_head(encoder.dim, hidden_dim, width, depth=depth, norm=norm, last_norm=True)
        self.predictor = mlp_head(width, bottleneck, width, depth=2, norm=norm)

    def project(self, features: Features) -> dict[str, Tensor]:
        outputs = {}
        for i, view in enumerate(self.reads):
            z = self.head(features.clean(view)[0].pooled)
            outputs[f"p{i + 1}"], outputs[f"z{i + 1}"] = widened(self.predictor(z)), widened(z)
        return {**outputs, **local_rows(features, self.num_local, lambda pooled: self.predictor(self.head(pooled)))}

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        """Return equation 2, in [-1, 1]: 0 if p is uncorrelated with z, -1 if p equals z, also after a collapse.

        The logged ``spread`` detects a collapse (figure 2): the std of each dimension of the normalised projections,
        averaged and divided by 1 / sqrt(D). It is 1 where they fill the sphere and 0 where they collapse.
        """
        p1, p2, z1, z2 = (outputs[name] for name in ("p1", "p2", "z1", "z2"))
        full = (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2
        total = with_local(full, outputs.get("local"), (z1, z2), lambda p, z: negative_cosine(p, z) / 2)
        z = F.normalize(torch.cat([z1, z2]).detach(), dim=1)
        return Loss(total, {"spread": z.std(dim=0, correction=0).mean() * z.shape[1] ** 0.5})
