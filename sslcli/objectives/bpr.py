"""Bayesian personalised ranking: items that a user has score higher than items that the user does not have."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.config.ranges import Count, NotNegative
from sslcli.encoders.base import Encoder, Recommends
from sslcli.features import Features
from sslcli.objectives.base import Objective
from sslcli.objectives.heads import widened
from sslcli.types import Loss


class BPR(Objective):
    """The mean over pairs and negatives of -log sigmoid(s+ - s-) (Rendle et al. 2009, arXiv:1205.2618).

    s+ is the dot product of the vectors of a user (view 0) and of an item of theirs (view 1), s- that of the same user
    with an item that they do not have (views from 2 on, of ``views=nodes``). To it ``l2`` adds, as LightGCN does,
    l2 / (2 B) * sum over the B pairs of |u|^2 + |i|^2 + mean over negatives of |j|^2, with the vectors of the table,
    before any layer of a graph (He et al. 2020, equation 15, for a batch).

    Args:
        encoder: the encoder to train, such as ``encoder=nodes``.
        negatives: how many items that the user does not have are drawn for each pair.
        l2: weight of the squared lengths. RecBole's ``reg_weight`` multiplies lengths, not their squares.

    Raises:
        ValueError: the encoder has no vectors of items.
    """

    similarity = "dot"

    def __init__(self, encoder: Encoder, *, negatives: Count = 1, l2: NotNegative = 0.0) -> None:
        super().__init__()
        if not isinstance(encoder, Recommends):
            raise ValueError(
                "bpr compares users with items, and this encoder has no vectors of them; use encoder=nodes"
            )
        self.reads = tuple(range(2 + negatives))
        self.l2 = l2

    def project(self, features: Features) -> dict[str, Tensor]:
        user, item, *others = features.clean(*self.reads)
        of_user, of_item = widened(user.pooled), widened(item.pooled)
        differences = [(of_user * (of_item - widened(encoded.pooled))).sum(1) for encoded in others]
        outputs = {"difference": torch.stack(differences, 1)}  # (B, negatives), s+ - s-
        if self.l2:
            lengths = [widened(encoded.token(0)).square().sum(1) for encoded in (user, item, *others)]
            outputs["length"] = lengths[0] + lengths[1] + torch.stack(lengths[2:]).mean(0)
        return outputs

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        difference = outputs["difference"]
        ranking = -F.logsigmoid(difference).mean()
        parts = {"pair_accuracy": ((difference > 0).float() + 0.5 * (difference == 0)).detach().mean()}
        if not self.l2:
            return Loss(ranking, parts, self.chance(len(difference)))
        lengths = outputs["length"].mean() / 2
        parts |= {"bpr": ranking.detach(), "squared_length": lengths.detach()}
        return Loss(ranking + self.l2 * lengths, parts, self.chance(len(difference)))

    def chance(self, batch_size: int) -> float:
        return math.log(2)
