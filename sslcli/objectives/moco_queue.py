"""MoCo with a queue of negatives, versions 1 and 2 (He et al. 2020, arXiv:1911.05722; Chen et al. 2020, 2003.04297)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.encoders.base import Encoder
from sslcli.encoders.batchnorm import batch_norms
from sslcli.features import Features
from sslcli.objectives.base import Objective, two_views
from sslcli.objectives.heads import widened
from sslcli.objectives.losses.tiled_logsumexp import rows_logsumexp
from sslcli.objectives.multi_crop import local_rows, with_local
from sslcli.objectives.shuffling_bn import in_groups, shuffled, through
from sslcli.objectives.teacher import Teacher, checked_momentum
from sslcli.randomness import fold
from sslcli.types import Loss


def queue_contrast(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of choosing a query's key among that key and the queue (MoCo, equation 1).

    Args:
        queries: (N, D) rows of norm 1.
        keys: (N, D) rows of norm 1; row i is the positive of query i.
        queue: (K, D) rows of norm 1, the negatives.
        temperature: divides the cosine similarities.
    """
    with torch.autocast(queries.device.type, enabled=False):
        positive = (queries * keys).sum(1) / temperature
        negatives = rows_logsumexp(queries, queue, 1 / temperature)
        return (torch.logaddexp(positive, negatives) - positive).mean()


class MoCo(Objective):
    """Contrast queries with the momentum encoder's keys; earlier keys are the negatives.

    The order of a step is the published one: update the teacher, encode the keys, take the loss, and only then put
    the keys into the queue, so that no key is a negative in its own step. As published, each view is its own batch.

    Small views (multi-crop) are further queries, encoded as one batch for any ``bn_splits``. With L small views q_l
    the loss is (full + sum_l sum_k queue_contrast(q_l, k)) / (1 + L), where k runs over the keys in ``full``: those
    of both views, or of the second only if not ``symmetric``.

    Args:
        encoder: the encoder to train.
        head: its projector.
        width: width of the embedding.
        temperature: temperature of the softmax over cosine similarities.
        momentum: momentum of the teacher, constant.
        queue: number of keys in the queue.
        symmetric: use each view as query and as key, and sum the two losses.
        bn_splits: split each micro-batch into this many BatchNorm batches, differently for queries and keys.
        reads: the numbers of the two views that it compares; null is the first two.
    """

    needs_teacher = True
    takes_local = True

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Module,
        width: int,
        *,
        temperature: float,
        momentum: float,
        queue: int,
        symmetric: bool,
        bn_splits: int,
        reads: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.reads = two_views(reads)
        if queue < 1 or bn_splits < 1:
            raise ValueError("queue and bn_splits must be at least 1")
        self.head = head
        self.teacher = Teacher(encoder, head)
        self.temperature, self.momentum = temperature, checked_momentum(momentum)
        self.symmetric, self.bn_splits = symmetric, bn_splits
        self.shuffles = bool(batch_norms(self.teacher))
        self.queue: Tensor
        self.queue_pointer: Tensor
        self.register_buffer("queue", F.normalize(torch.randn(queue, width), dim=1))
        self.register_buffer("queue_pointer", torch.zeros(1, dtype=torch.int64))

    def check(self, num_samples: int, micro_batch: int) -> None:
        if micro_batch % self.bn_splits:
            raise ValueError(f"bn_splits={self.bn_splits} does not divide the micro-batch of {micro_batch}")
        if len(self.queue) > num_samples:
            raise ValueError(
                f"queue={len(self.queue)} is larger than the {num_samples} training samples, so a sample's own older "
                f"keys would be its negatives; give objective.queue={num_samples} or less"
            )

    def before_step(self, progress: float) -> None:
        self.teacher.follow(self.momentum)

    def project(self, features: Features) -> dict[str, Tensor]:
        directions = ((1, 2), (2, 1)) if self.symmetric else ((1, 2),)
        outputs = {}
        for query, key in directions:
            outputs[f"q{query}"] = F.normalize(widened(self._queries(features, self.reads[query - 1])), dim=1)
            outputs[f"k{key}"] = F.normalize(widened(self._keys(features, self.reads[key - 1])), dim=1)
        return {**outputs, **local_rows(features, self.num_local, self._local_queries)}

    def _local_queries(self, pooled: Tensor) -> Tensor:
        return F.normalize(widened(self.head(pooled)), dim=1)

    def _queries(self, features: Features, i: int) -> Tensor:
        if self.bn_splits == 1 or not self.training:
            queries: Tensor = self.head(features.clean(i)[0].pooled)
            return queries
        encode = in_groups(through(features.encode, self.head), self.bn_splits, *self.teacher.students)
        return encode(features.views[i]).pooled

    @torch.no_grad()
    def _keys(self, features: Features, i: int) -> Tensor:
        teacher = self.teacher
        encode = through(teacher.encoder, teacher.head)
        if self.training:
            encode = in_groups(encode, self.bn_splits, teacher.encoder, teacher.head)
        if self.shuffles and self.training and (features.ranks.size > 1 or self.bn_splits > 1):
            seed = fold(features.randomness.seed, "shuffle", features.randomness.step, i) % 2**63
            encode = shuffled(encode, features.ranks, seed)
        return features.teacher(encode, i)[0].pooled

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        def pair(queries: Tensor, keys: Tensor) -> Tensor:
            return queue_contrast(queries, keys, self.queue, self.temperature)

        full, keys = pair(outputs["q1"], outputs["k2"]), [outputs["k2"]]
        if self.symmetric:
            full, keys = full + pair(outputs["q2"], outputs["k1"]), [outputs["k1"], outputs["k2"]]
        total = with_local(full, outputs.get("local"), keys, pair)
        similarity = (outputs["q1"].detach() * outputs["k2"]).sum(1).mean()
        return Loss(total, {"positive_similarity": similarity}, chance=self.chance(len(outputs["q1"])))

    def after_step(self, outputs: Mapping[str, Tensor]) -> None:
        """Replace the oldest keys of the queue by this step's keys; if there are too many, by the last of them."""
        keys = torch.cat([outputs[name] for name in ("k1", "k2") if name in outputs])
        size = len(self.queue)
        slots = (self.queue_pointer + torch.arange(len(keys), device=keys.device)) % size
        self.queue[slots[-size:]] = keys[-size:].to(self.queue.dtype)
        self.queue_pointer.copy_((self.queue_pointer + len(keys)) % size)

    def chance(self, batch_size: int) -> float | None:
        return math.log(len(self.queue) + 1) * (2 if self.symmetric else 1)
