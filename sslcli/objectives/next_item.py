"""Predict the next item of a history, among all items, at each of its places (SASRec with cross-entropy)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.encoders.base import Encoder, Recommends
from sslcli.features import Features
from sslcli.graph import Graph
from sslcli.objectives.base import Objective, distinct
from sslcli.objectives.losses.tiled_logsumexp import rows_logsumexp
from sslcli.types import Loss

COLUMN = "history"


class NextItem(Objective):
    """Each state of a causal encoder predicts the item that follows; every beginning of a history is one prediction.

    The score of an item is the dot product of its vector with the state, and the error is the cross-entropy over all
    items. The published SASRec classifies one drawn negative at a time (Kang and McAuley 2018, section III-E); over all
    items the same model is better by a quarter (Klenitskiy and Vasilev 2023, arXiv:2309.07602, table 2).

    The loss is the mean over all predictions of the whole batch, so that long histories count more. Scores exist tile
    by tile only: memory grows with the predictions plus the items, not with their product.

    Args:
        encoder: the encoder to train; it has ``item_vectors``, and its states know nothing of later items.
        reads: the number of the view that it reads, of whole histories; null is the first.

    Raises:
        ValueError: the encoder is another one.
    """

    similarity = "dot"

    def __init__(self, encoder: Encoder, *, reads: list[int] | None = None) -> None:
        super().__init__()
        self.reads = distinct((0,) if reads is None else reads, 1)
        if not isinstance(encoder, Recommends) or not getattr(encoder, "causal", False):
            raise ValueError(
                "next_item predicts each item of a history from those before it; use encoder=history with "
                "encoder.causal=true"
            )
        self.column = encoder.view_spec[COLUMN]
        graph = Graph.of(encoder.view_spec)
        self.num_users, self.num_items = graph.num_users, graph.num_items
        self._outside = (encoder,)  # in a tuple it is no module of this module

    def project(self, features: Features) -> dict[str, Tensor]:
        """Return of each history the summed cross-entropy (B,), and how many items were predicted (B,)."""
        (i,) = self.reads
        history, (encoded,) = features.views[i].x, features.clean(i)
        which = self.column.words(history)[:, 1:]
        states, truth = encoded.tokens[:, :-1], history[:, 1:] - self.num_users
        weight = which.float()
        if weight.device.type == "cpu":  # where counting waits for nothing: padding is left out
            error = torch.zeros_like(weight)
            error[which] = self._compared(states[which], truth[which])
        else:
            each = self._compared(states.flatten(0, 1), truth.clamp(max=self.num_items - 1).flatten())
            error = each.view_as(weight) * weight
        return {"error": error.sum(1), "count": weight.sum(1)}

    def _compared(self, states: Tensor, truth: Tensor) -> Tensor:
        """Return the cross-entropy (N,) of states (N, D) with the numbers ``truth`` (N,) of the items that follow."""
        with torch.autocast(states.device.type, enabled=False):
            states, vectors = states.float(), self._outside[0].item_vectors().float()
            right = (states * F.embedding(truth, vectors)).sum(1)
            return rows_logsumexp(states, vectors, 1.0) - right

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        total = outputs["error"].sum() / outputs["count"].sum().clamp(min=1)
        return Loss(total, {}, self.chance(len(outputs["count"])))

    def chance(self, batch_size: int) -> float | None:
        return math.log(self.num_items)
