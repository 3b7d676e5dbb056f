"""What is asked of a recommender: the held-out interactions of each user whom it knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sslcli.data.interactions.parts import TEST, TRAIN, VALIDATION
from sslcli.graph import Graph, Lists, Rankings


@dataclass(frozen=True)
class Known:
    """The interactions of some data by the numbers of a run, N of them, sorted by user, and those of a user in order.

    Args:
        user: (N,) int64, the user's number, -1 for one that the run does not know.
        item: (N,) int64, the item's, from 0; -1 for one that it does not know.
        parts: (N,) the part of each.
        graph: the run's training interactions.
    """

    user: np.ndarray
    item: np.ndarray
    parts: np.ndarray
    graph: Graph

    @property
    def is_known(self) -> np.ndarray:
        """Whether both the user and the item are known, (N,) bool."""
        return (self.user >= 0) & (self.item >= 0)

    def in_parts(self, *parts: int) -> np.ndarray:
        """Whether an interaction is known and in one of ``parts``, (N,) bool."""
        return self.is_known & np.isin(self.parts, parts)

    def trained(self) -> np.ndarray:
        """Whether an interaction is in the graph, (N,) bool."""
        edges, nodes = self.graph.edges.numpy(), self.graph.num_nodes
        keys = edges[0] * nodes + edges[1]  # ascending; of other data than the run's, a held-out pair may be in it
        own = self.user * nodes + self.item + self.graph.num_users
        place = np.searchsorted(keys, own).clip(max=len(keys) - 1)
        return (keys[place] == own) & self.is_known


@dataclass(frozen=True)
class Asked:
    """The held-out interactions that can be found.

    Args:
        rows: (M,) their positions.
        users: (Q,) the numbers of their users, ascending.
        unseen: how many more have items that training never saw, and so cannot be found.
        lost: how many more users have such items only.
        lines: what else of the held-out interactions is not ranked, counted, in words.
    """

    rows: np.ndarray
    users: np.ndarray
    unseen: int
    lost: int
    lines: list[str]

    @classmethod
    def of(cls, known: Known, part: int, histories: bool) -> Asked:
        """Return those of a part; with ``histories``, of users who have a known item in an earlier part only."""
        asked = known.parts == part
        of_user = asked & (known.user >= 0)
        earlier = np.unique(known.user[known.in_parts(*before(part))]) if histories else known.graph.edges[0].numpy()
        reached = of_user & np.isin(known.user, earlier)
        trained = known.trained()
        rows = np.flatnonzero(reached & (known.item >= 0) & ~trained)
        users = np.unique(known.user[rows])
        counts = {
            "pairs of users whom training never saw": int((asked & ~reached).sum()),
            "pairs that the run was trained on": int((asked & trained).sum()),
        }
        unseen = reached & (known.item < 0)
        lost = len(np.setdiff1d(known.user[unseen], users))
        lines = [f"{count:,} {words}" for words, count in counts.items() if count]
        return cls(rows, users, int(unseen.sum()), lost, lines)


def before(part: int) -> tuple[int, ...]:
    """Return the parts that come before a held-out part, which a user has seen."""
    return (TRAIN, VALIDATION) if part == TEST else (TRAIN,)


def rankings(known: Known, asked: Asked, part: int, histories: bool, protocol: str) -> Rankings:
    """Return what is asked; the arguments are as in ``Asked.of``.

    The held-out part has a sample for each interaction of ``asked.rows``, or with ``histories`` for each user.
    """
    edges = known.graph.edges.numpy()
    trained = (edges[0], edges[1] - known.graph.num_users)
    earlier = known.in_parts(*before(part))
    seen = tuple(np.concatenate([a, b[earlier]]) for a, b in zip(trained, (known.user, known.item)))
    unknown = known.user[(known.parts == part) & (known.item < 0) & (known.user >= 0)]
    users = known.user[asked.rows]
    return Rankings(
        queries=torch.from_numpy(np.arange(len(asked.users)) if histories else np.searchsorted(users, asked.users)),
        users=torch.from_numpy(asked.users),
        relevant=_lists(asked.users, users, known.item[asked.rows]),
        seen=_lists(asked.users, *seen),
        known=_lists(asked.users, *((known.user[earlier], known.item[earlier]) if histories else trained)),
        unknown=torch.from_numpy(np.bincount(unknown, minlength=known.graph.num_users)[asked.users]),
        protocol=protocol,
        lost=asked.lost,
    )


def _lists(queries: np.ndarray, user: np.ndarray, item: np.ndarray) -> Lists:
    """Return the different items of each of the users ``queries`` (Q,), which ascend."""
    rank = np.full(max(int(user.max(initial=0)), int(queries.max())) + 1, -1)
    rank[queries] = np.arange(len(queries))
    own = rank[user] >= 0
    width = int(item.max(initial=0)) + 1
    keys = np.sort(rank[user[own]] * width + item[own])  # np.unique hashes, which takes several times as long
    keys = keys[np.diff(keys, prepend=-1) > 0]
    starts = np.searchsorted(keys, np.arange(len(queries) + 1) * width)
    return Lists(torch.from_numpy(starts), torch.from_numpy(keys % width))
