"""What a contrastive loss has to know of views that are ids: which are equal, and how often each is in a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sslcli.config.automatic import AUTO
from sslcli.encoders.base import Encoder
from sslcli.graph import Graph
from sslcli.objectives.losses.equal_samples import num_equal, weight_of_negatives
from sslcli.types import Spec, View


class Ids(nn.Module):
    """The ids of the two views that ``infonce`` compares, where these are ids.

    Args:
        encoder: the encoder, whose data may have a graph.
        form: the form of InfoNCE.
        same: the key ``same``; ``auto`` asks for the ids of the views.
        log_q: the key ``log_q``.
        unique: the key ``unique``.

    Raises:
        ValueError: these values contradict each other, or the data have no graph.
    """

    log_share: Tensor | None  # (nodes,) float32, the logarithm of the share of training pairs that a node is in

    def __init__(
        self, encoder: Encoder, form: str, same: str | None, log_q: Literal["auto"] | bool, unique: bool
    ) -> None:
        super().__init__()
        if form != "cross_view" and (unique or log_q is True):
            raise ValueError(f"form={form} has neither log_q=true nor unique=true; use form=cross_view")
        if unique and (log_q is True or same is not None):
            raise ValueError("unique=true counts each id once, so there is nothing for log_q and same; leave them out")
        self.unique, self.compared = unique, unique or same == AUTO
        spec: Spec = getattr(encoder, "spec", None) or Spec()  # a plug-in's encoder need not have one
        self.columns = {name for name, field in spec.items() if field.kind == "id"}
        if same == AUTO and not self.columns:
            raise ValueError(
                "same=auto compares the ids that views are of, and these data have none; leave it out, or use "
                "encoder=nodes on users and items"
            )
        wanted = log_q is True or (log_q == AUTO and form == "cross_view" and not unique and Graph.is_in(spec))
        log_share = Graph.of(spec).shares.log() if wanted else None
        self.register_buffer("log_share", log_share, persistent=False)

    def rows(self, views: Sequence[View]) -> dict[str, Tensor]:
        """Return ``same`` (B,) or (B, 2) where it is asked for, ``log_q1`` and ``log_q2`` (B,) where known.

        Args:
            views: the two views that are compared, or the one whose layers are.

        Raises:
            ValueError: ``unique`` has no two passes over the same ids.
        """
        found = {view.field: view.x for view in views if view.field in self.columns}
        if self.unique and (len(found) != 1 or (len(views) == 2 and views[0].noise == views[1].noise)):
            raise ValueError(
                "unique=true compares two noisy passes over the same ids, or two layers; set views.noise=added"
            )
        outputs = {}
        if self.compared and found:
            columns = list(found.values())
            outputs["same"] = columns[0] if len(columns) == 1 else torch.stack(columns, 1)
        if self.log_share is not None:
            for number, view in enumerate((views[0], views[-1]), start=1):
                if view.field in self.columns:
                    outputs[f"log_q{number}"] = self.log_share[view.x]
        return outputs

    def chance(self, outputs: Mapping[str, Tensor], symmetric: bool) -> Tensor | None:
        """Return the loss of equal vectors, where ids change it; None elsewhere."""
        if self.unique:
            return (1 / num_equal(outputs["same"])).sum().log()
        if "log_q1" not in outputs and "log_q2" not in outputs:
            return None
        sides = ("log_q2", "log_q1")[: 2 if symmetric else 1]
        return torch.stack([_chance(outputs["z1"], outputs.get(q), outputs.get("same")) for q in sides]).mean()


def _chance(like: Tensor, log_q: Tensor | None, same: Tensor | None) -> Tensor:
    log_q = torch.zeros_like(like[:, 0]) if log_q is None else log_q
    own = (-log_q).exp()
    others = own.sum() - own if same is None else weight_of_negatives(same, own)
    return ((own + others).log() + log_q).mean()
