"""The vectors of the users and items of a run with their raw ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import Dataset
from sslcli.data.dataloading import in_pieces
from sslcli.data.interactions.ids import NAME, Ids
from sslcli.encoders.base import Recommends
from sslcli.export.base import Source
from sslcli.export.tables import Column, Columns, Part, Rows
from sslcli.graph import Graph, Lists, Rankings

_ROWS = 4096  # at a time


def recommends(source: Source) -> bool:
    """Return whether a run has users and items, and an encoder with vectors of both."""
    return NAME in source.model.fitted.files and isinstance(source.model.encoder, Recommends)


def ids_of(source: Source) -> Ids:
    """Return the raw ids of a run's users and items."""
    return Ids.of_file(source.model.fitted.files[NAME])


@torch.inference_mode()
def item_vectors(source: Source) -> Tensor:
    """Return the vectors (I, D) of all items, float32, on the CPU."""
    encoder = source.model.encoder
    assert isinstance(encoder, Recommends)
    return encoder.item_vectors().detach().float().cpu()


class Users:
    """The samples that show the users: a held-out one where the user is asked for, else the first training sample.

    So a user's vector is the one that ``probe=ranking`` reads, and a history is as long as it is there.

    Args:
        source: the run.
        train: its training part, with its held-out part.
        workers: how many processes read ahead.
    """

    def __init__(self, source: Source, train: Dataset, workers: int | None) -> None:
        self.source, self._workers = source, workers
        graph = Graph.of(train.spec)
        samples = torch.full((2, graph.num_users), -1)  # held-out ones, and those of training
        self._datasets = (train if train.held_out is None else train.held_out, train)
        asked = self._datasets[0].rankings
        if asked is not None:
            samples[0, asked.users] = asked.queries
        start = 0
        for columns, _ in in_pieces(train, torch.arange(len(train)), workers):
            users, first = np.unique(columns["user"].numpy(), return_index=True)
            places = torch.from_numpy(users)
            samples[1, places] = torch.where(
                samples[1, places] < 0, torch.from_numpy(first + start), samples[1, places]
            )
            start += len(columns["user"])
        self.seen = _seen(graph, asked)
        self.numbers = torch.nonzero((samples >= 0).any(0))[:, 0]  # (N,) of the users that a sample shows
        samples = samples[:, self.numbers]
        self._part = (samples[0] < 0).long()
        self._sample = samples.gather(0, self._part[None])[0]

    def vectors(self, rows: Tensor) -> Tensor:
        """Return the vectors (B, D) of the users ``numbers[rows]``."""
        found = torch.zeros(len(rows), self.source.model.dim)
        for part, dataset in enumerate(self._datasets):
            here = torch.nonzero(self._part[rows] == part)[:, 0]
            pieces = in_pieces(dataset, self._sample[rows[here]], self._workers)
            parts = [self.source.features(columns) for columns, _ in pieces] if len(here) else []
            if parts:
                found[here] = torch.cat(parts)
        return found


def _seen(graph: Graph, asked: Rankings | None) -> Lists:
    """Return the items of each user in training, and those that a ranking leaves out, too."""
    users, items = graph.edges[0], graph.edges[1] - graph.num_users
    if asked is not None:
        place, more = asked.seen.pairs(torch.arange(len(asked.users)))
        users, items = torch.cat([users, asked.users[place]]), torch.cat([items, more])
    pairs = torch.unique(torch.stack([users, items]), dim=1)
    return Lists.of(pairs[0], pairs[1], graph.num_users)


@dataclass
class _Users:
    """A row for each user."""

    users: Users
    ids: Ids
    longest: int
    of: str = "users and items"
    names: Mapping[str, str] = field(default_factory=lambda: {"kinds": "kind", "ids": "id", "vectors": "vector"})

    def __len__(self) -> int:
        return len(self.users.numbers)

    def columns(self) -> Columns:
        return _columns(self.longest, self.users.source)

    def pieces(self) -> Iterator[tuple[Rows, list[str]]]:
        for part in torch.arange(len(self)).split(_ROWS):
            yield self.again(part), []

    def again(self, index: Tensor) -> Rows:
        names = [self.ids.users[i] for i in self.users.numbers[index].tolist()]
        return {"kind": ["user"] * len(names), "id": names, "vector": self.users.vectors(index).numpy()}


@dataclass
class _Items(_Users):
    """A row for each item."""

    @cached_property
    def _vectors(self) -> np.ndarray:
        return item_vectors(self.users.source).numpy()  # a graph encoder computes all of them for any

    def __len__(self) -> int:
        return len(self.ids.items)

    def again(self, index: Tensor) -> Rows:
        names = [self.ids.items[i] for i in index.tolist()]
        return {"kind": ["item"] * len(names), "id": names, "vector": self._vectors[index.numpy()]}


def _columns(longest: int, source: Source) -> Columns:
    return {"kind": Column("text", 4), "id": Column("text", longest), "vector": Column("float32", source.model.dim)}


def nodes(source: Source, train: Dataset, workers: int | None) -> Sequence[Part]:
    """Return the rows of the users, then those of the items, in the order of their numbers."""
    ids = ids_of(source)
    longest = max(map(len, (*ids.users, *ids.items)))
    users = Users(source, train, workers)
    return [_Users(users, ids, longest), _Items(users, ids, longest)]
