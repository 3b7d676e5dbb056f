"""The interactions of users with items that a run has been trained on, as a graph: users and items are its nodes.

Nodes have one numbering: users from 0, then items. The graph is made of the training part only and belongs to the run,
in ``Spec.facts``: encoders propagate over it, views draw items that a user does not have, objectives read how often an
item occurs, and probes leave out what a user has seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.types import Spec

_EDGES, _USERS, _ITEMS = "graph.edges", "graph.users", "graph.items"  # the facts
FEATURES = {"user": "graph.user_features", "item": "graph.item_features"}  # facts, too: (U, D) and (I, D), float32


@dataclass(frozen=True)
class Lists:
    """A list of numbers for each of several rows: that of row i is ``values[starts[i]:starts[i + 1]]``.

    Args:
        starts: (N + 1,) int64.
        values: (M,) int64.
    """

    starts: Tensor
    values: Tensor

    @classmethod
    def of(cls, rows: Tensor, values: Tensor, count: int) -> Lists:
        """Collect the values of each of ``count`` rows, in ascending order, from ``rows`` (M,) and ``values`` (M,)."""
        order = values.argsort(stable=True)
        order = order[rows[order].argsort(stable=True)]
        lengths = torch.bincount(rows, minlength=count)
        return cls(torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]), values[order])

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]]) -> Lists:
        """Return the lists of these rows, in their order."""
        lengths = torch.tensor([0, *map(len, rows)])
        return cls(lengths.cumsum(0), torch.tensor([value for row in rows for value in row], dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Tensor:
        """The number of values of each row (N,)."""
        return self.starts.diff()

    def row(self, i: int) -> Tensor:
        """Return the values of row ``i``."""
        return self.values[int(self.starts[i]) : int(self.starts[i + 1])]

    def pairs(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values of the rows ``rows`` (B,) as pairs: the place in ``rows`` (K,), and the value (K,)."""
        lengths = self.lengths[rows]
        place = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), lengths)
        within = torch.arange(len(place), device=rows.device) - (lengths.cumsum(0) - lengths)[place]
        return place, self.values[self.starts[rows][place] + within]

    def dense(self, rows: Tensor, width: int) -> Tensor:
        """Return (B, width) bool, True at the values of the rows ``rows`` (B,), which are below ``width``."""
        found = torch.zeros(len(rows), width, dtype=torch.bool, device=rows.device)
        found[self.pairs(rows)] = True
        return found


@dataclass(frozen=True)
class Graph:
    """The training interactions.

    Args:
        num_users: users are the nodes from 0 to ``num_users - 1``.
        num_items: items are the nodes from ``num_users`` to ``num_users + num_items - 1``.
        edges: (2, E) int64, each pair of a user's and an item's node once, sorted by user, then item.
    """

    num_users: int
    num_items: int
    edges: Tensor

    @classmethod
    def of(cls, spec: Spec) -> Graph:
        """Return the graph of some data.

        Raises:
            ValueError: these data have none.
        """
        if not Graph.is_in(spec):
            raise ValueError("the dataset has no users and items; choose dataset=interactions or package_deps")
        facts = spec.facts
        return cls(int(facts[_USERS]), int(facts[_ITEMS]), facts[_EDGES].long())

    @staticmethod
    def is_in(spec: Spec) -> bool:
        """Return whether some data have a graph."""
        return _EDGES in spec.facts

    @staticmethod
    def facts(num_users: int, num_items: int, users: Tensor, items: Tensor) -> Mapping[str, Tensor]:
        """Return the facts of training pairs (E,) of a user's number and an item's number, both from 0."""
        keys = torch.unique(users * num_items + items)  # pairs as numbers: unique columns take several times as long
        pairs = torch.stack([keys // num_items, keys % num_items + num_users])
        return {_EDGES: pairs, _USERS: torch.tensor(num_users), _ITEMS: torch.tensor(num_items)}

    @property
    def num_nodes(self) -> int:
        """The number of users and items."""
        return self.num_users + self.num_items

    @property
    def popularity(self) -> Tensor:
        """How many users each item has, (I,) int64."""
        return torch.bincount(self.edges[1] - self.num_users, minlength=self.num_items)

    @property
    def shares(self) -> Tensor:
        """The share of training pairs that each node is in, (N,) float32; of a node without any, that of one pair."""
        nodes = self.edges.flatten()
        return torch.bincount(nodes, minlength=self.num_nodes).clamp(min=1) / max(self.edges.shape[1], 1)

    def items_of_users(self) -> Lists:
        """Return each user's items, numbered from 0."""
        return Lists.of(self.edges[0], self.edges[1] - self.num_users, self.num_users)


@dataclass(frozen=True)
class Rankings:
    """What held-out interactions ask of a recommender: to rank some items first for each of Q users.

    Args:
        queries: (Q,) int64, which sample of the held-out part shows each user: its ``user``, or its ``history``.
        users: (Q,) int64, the user's node.
        relevant: the items, numbered from 0, that are to be found for each query.
        seen: the items that are not ranked, as the user has them in the training part, or in the validation part if
            the test part is asked for.
        known: the items that an encoder may know of a user: those of the training part, or of the history it reads.
        unknown: (Q,) int64, how many more items are to be found that training never saw, and so cannot be.
        protocol: how the interactions were divided, for the protocols of measurements.
        lost: how many more users have items to find, but only such that training never saw; their metrics are 0.
    """

    queries: Tensor
    users: Tensor
    relevant: Lists
    seen: Lists
    known: Lists
    unknown: Tensor
    protocol: str
    lost: int = 0
