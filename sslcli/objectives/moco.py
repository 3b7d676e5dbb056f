"""MoCo in its three versions: negatives from a queue (1 and 2), or from the batch, with a predictor (3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from sslcli.config.ranges import Count, Depth, Share, TemperatureValue
from sslcli.encoders.base import Encoder
from sslcli.objectives.base import Objective
from sslcli.objectives.heads import Norm, mlp_head
from sslcli.objectives.losses.contrastive import info_nce
from sslcli.objectives.moco_queue import MoCo
from sslcli.objectives.momentum_predictor import MomentumPredictor
from sslcli.objectives.multi_crop import with_local
from sslcli.types import Loss


def moco(
    encoder: Encoder,
    *,
    version: Literal[1, 2, 3] = 2,
    temperature: TemperatureValue = 0.2,
    momentum: Share = 0.99,
    width: Count = 128,
    hidden_dim: Count | None = None,
    depth: Depth | None = None,
    norm: Norm | None = None,
    queue: Count | None = None,
    symmetric: bool | None = None,
    bn_splits: Count | None = None,
    freeze_patches: bool | None = None,
    reads: list[int] | None = None,
) -> Objective:
    """Build MoCo of one version; null takes that version's default, and options of other versions are refused.

    Args:
        encoder: the encoder to train.
        version: 1 (linear head), 2 (MLP head) or 3 (no queue; a predictor, both directions).
        temperature: temperature of the softmax over cosine similarities.
        momentum: momentum of the teacher; constant in 1 and 2, rising to 1 in 3.
        width: width of the embedding.
        hidden_dim: width of the heads' hidden layers; null is 256 in 1 and 2, and 512 in 3
            (published: the encoder's width, and 4096).
        depth: linear layers of the projector; null is 1, 2 and 2 as published (3 with ViT in version 3).
        norm: norm in the heads; null is none in 1 and 2 and ``batch`` in 3, as published.
        queue: versions 1 and 2: number of keys in the queue; null is 1024.
        symmetric: versions 1 and 2: use each view as query and as key; null is true.
        bn_splits: versions 1 and 2: number of BatchNorm batches in a micro-batch; null is 1.
        freeze_patches: version 3: keep a ViT's patch embedding at its random initialisation; null is false.
        reads: the numbers of the two views that it compares; null is the first two.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive; 0.07 to 1 is usual")
    if version == 3:
        _refuse("version=3 has no queue of keys", queue=queue, symmetric=symmetric, bn_splits=bn_splits)
        if freeze_patches:
            _freeze_patches(encoder)
        heads = {"hidden_dim": 512 if hidden_dim is None else hidden_dim, "depth": 2 if depth is None else depth}
        return MoCoV3(
            encoder, temperature=temperature, momentum=momentum, width=width, norm=norm or "batch", reads=reads, **heads
        )
    _refuse(f"version={version} trains its patch embedding", freeze_patches=freeze_patches)
    hidden = 256 if hidden_dim is None else hidden_dim
    head = mlp_head(encoder.dim, hidden, width, depth=version if depth is None else depth, norm=norm or "none")
    return MoCo(
        encoder,
        head,
        width,
        temperature=temperature,
        momentum=momentum,
        queue=1024 if queue is None else queue,
        symmetric=symmetric is not False,
        bn_splits=1 if bn_splits is None else bn_splits,
        reads=reads,
    )


class MoCoV3(MomentumPredictor):
    """Contrast predictions with the teacher's keys of the whole batch (Chen et al. 2021, arXiv:2104.02057, alg. 1).

    With L small views q_l: (full + 2 T sum_l (info_nce(q_l -> k1) + info_nce(q_l -> k2))) / (1 + L).
    """

    couples_batch = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: TemperatureValue,
        momentum: Share,
        hidden_dim: Count,
        width: Count,
        depth: Depth,
        norm: Norm,
        reads: list[int] | None,
    ) -> None:
        super().__init__(
            encoder,
            momentum=momentum,
            hidden_dim=hidden_dim,
            width=width,
            depth=depth,
            norm=norm,
            projector_norm=True,
            predictor_norm=encoder.patch_embedding is not None,  # as published: with ViT, not with ResNet
            last_bias=False,
            reads=reads,
        )
        self.temperature = temperature

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        q1, q2, k1, k2 = (outputs[name] for name in ("q1", "q2", "k1", "k2"))
        one = info_nce(q1, k2, self.temperature, symmetric=False)
        two = info_nce(q2, k1, self.temperature, symmetric=False)
        similarity = F.cosine_similarity(q1.detach(), k2, dim=1).mean()
        full = 2 * self.temperature * (one + two)

        def pair(q: Tensor, k: Tensor) -> Tensor:
            return 2 * self.temperature * info_nce(q, k, self.temperature, symmetric=False)

        total = with_local(full, outputs.get("local"), (k1, k2), pair)
        return Loss(total, {"positive_similarity": similarity}, chance=self.chance(len(q1)))

    def chance(self, batch_size: int) -> float | None:
        return 4 * self.temperature * math.log(batch_size)


def _refuse(reason: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}={value}: {reason}; leave {name} null")


def _freeze_patches(encoder: Encoder) -> None:
    if encoder.patch_embedding is None:
        raise ValueError("freeze_patches=true: this encoder has no patch embedding; leave it null")
    encoder.patch_embedding.requires_grad_(False)
