"""Two towers: vectors of users and of items from embeddings of their ids and from their features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.config.ranges import Count, Depth, Positive
from sslcli.encoders.base import Encoder
from sslcli.graph import FEATURES, Graph
from sslcli.types import Encoded, Spec, View

_ROWS = 2**16  # items at a time, where all are asked for


class Towers(Encoder):
    """A vector for each user and each item: the embedding of the id, plus what an MLP makes of the features.

    The two-tower model (Yi et al. 2019, RecSys, section 3), with ids and features added up as in LightFM (Kula 2015,
    arXiv:1507.08439, section 3), which is ``depth=1``. Users and items have an MLP each. Features are those of the run
    (``dataset.user_features``, ``dataset.item_features``): standardised numbers, and categories as places that are 1 or
    0. The run keeps them with its graph, so ids are all that is asked for. Without features the vectors are those of
    ``encoder=nodes``.

    Args:
        spec: the dataset's columns, with a graph among its facts, and perhaps features of users and items.
        dim: width of the vectors.
        hidden_dim: width of the hidden layers of the MLPs.
        depth: their linear layers, with a ReLU between two.
        ids: whether ids have embeddings; without, users or items of equal features have one vector.
        std: standard deviation of the embeddings, and of the last layers, at the start.

    Raises:
        ValueError: the data have no graph, or there are neither ids nor features.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        dim: Count = 64,
        hidden_dim: Count = 128,
        depth: Depth = 2,
        ids: bool = True,
        std: Positive = 0.01,
    ) -> None:
        super().__init__()
        graph = Graph.of(spec)
        self.spec, self.dim, self.token_dim, self.stride = spec, dim, dim, 1
        self.counts = {"user": graph.num_users, "item": graph.num_items}
        self.first = {"user": 0, "item": graph.num_users}  # nodes: users, then items
        self.widths = {role: spec.facts[fact].shape[1] if fact in spec.facts else 0 for role, fact in FEATURES.items()}
        for role, width in self.widths.items():
            if not ids and not width:
                raise ValueError(f"ids=false: {role}s have no features; set dataset.{role}_features=FILE, or ids=true")
            features = spec.facts.get(FEATURES[role])
            self.register_buffer(f"{role}_features", features, persistent=False)  # facts, which a run keeps anyway
        self.embed = nn.Embedding(graph.num_nodes, dim) if ids else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=std)
        self.towers = nn.ModuleDict(
            {role: _mlp(width, hidden_dim, dim, depth, std) for role, width in self.widths.items() if width}
        )

    def in_words(self, num_micro: int) -> str:
        words = [f"{role}s: {self._inputs(role)}" for role in self.counts]
        without = [f"dataset.{role}_features=FILE" for role, width in self.widths.items() if not width]
        return "; ".join(words + ([f"features are given by {' and '.join(without)}"] if without else []))

    def _inputs(self, role: str) -> str:
        width = self.widths[role]
        own = ["ids"] if self.embed is not None else []
        return " and ".join(own + ([f"{width:,} numbers of features"] if width else [])) + ("" if width else " alone")

    def grid(self, view: View) -> tuple[int, ...]:
        raise ValueError("encoder=towers has no part of a user or an item that could be hidden")

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        if mask is not None:
            self.grid(view)
        if view.field not in self.counts:
            raise ValueError(f"encoder=towers reads the columns user and item, and a view is of '{view.field}'")
        pooled = self._tower(view.field, view.x - self.first[view.field])
        return Encoded(pooled[:, None], pooled)

    def item_vectors(self) -> Tensor:
        """Return the vector (I, dim) of each item."""
        items = torch.arange(self.counts["item"], device=next(self.parameters()).device)
        return torch.cat([self._tower("item", part) for part in items.split(_ROWS)])

    def _tower(self, role: str, numbers: Tensor) -> Tensor:
        """Return the vectors (B, dim) of users or items by their numbers (B,), from 0 each."""
        parts = []
        if self.embed is not None:
            parts.append(self.embed.weight.index_select(0, numbers + self.first[role]))
        if role in self.towers:
            parts.append(self.towers[role](self.get_buffer(f"{role}_features").index_select(0, numbers)))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _mlp(width: int, hidden_dim: int, dim: int, depth: int, std: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(width, hidden_dim), nn.ReLU(inplace=True)]
        width = hidden_dim
    last = nn.Linear(width, dim)
    nn.init.normal_(last.weight, std=std)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
