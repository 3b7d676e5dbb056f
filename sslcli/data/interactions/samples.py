"""The samples that are made of interactions: pairs of a user and an item, or users with their histories."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sslcli.data.base import Columns, Dataset
from sslcli.data.interactions.ids import Ids
from sslcli.graph import Lists
from sslcli.types import Field, Spec


def spec_of_pairs(ids: Ids, facts: Mapping[str, Tensor]) -> Spec:
    """Return the columns ``user`` and ``item``, nodes both: users are numbered first, then items."""
    node = Field("id", (), torch.int64, vocab=len(ids.users) + len(ids.items))
    return Spec(user=node, item=node, facts=facts)


def spec_of_histories(ids: Ids, length: int, facts: Mapping[str, Tensor]) -> Spec:
    """Return the columns ``user``, a node, and ``history``, nodes of ``length`` items, padded at the end."""
    nodes = len(ids.users) + len(ids.items)
    history = Field("tokens", (length,), torch.int64, vocab=nodes + 2, pad=nodes, mask=nodes + 1)
    return Spec(user=Field("id", (), torch.int64, vocab=nodes), history=history, facts=facts)


def padded(histories: Lists, index: Tensor, field: Field, offset: int) -> Tensor:
    """Return the column (B, T) of some histories: of each the last T numbers, plus ``offset``, then padding.

    Args:
        histories: numbers, oldest first.
        index: (B,) int64, which of them.
        field: the column.
        offset: what turns the numbers into nodes.
    """
    (width,), last = field.shape, histories.starts[index + 1]
    first = torch.maximum(histories.starts[index], last - width)
    places = first[:, None] + torch.arange(width)
    within = places < last[:, None]
    values = histories.values if len(histories.values) else torch.zeros(1, dtype=torch.int64)  # all are empty
    items = values[places.clamp(max=len(values) - 1)] + offset
    return torch.where(within, items, field.pad or 0).to(field.dtype)


class Pairs(Columns):
    """One sample an interaction.

    Args:
        spec: the columns.
        ids: the users and items.
        user: (N,) int64, users by number.
        item: (N,) int64, items by number, from 0.
    """

    def __init__(self, spec: Spec, ids: Ids, user: Tensor, item: Tensor) -> None:
        super().__init__(spec, {"user": user, "item": item + len(ids.users)})
        self.ids = ids

    def name_of(self, i: int) -> str:
        """Return the ids of the user and the item."""
        user, item = (int(self.columns[name][i]) for name in ("user", "item"))
        return f"user {self.ids.users[user]}, item {self.ids.items[item - len(self.ids.users)]}"


class Histories(Dataset):
    """One sample a user: the items that the user has, oldest first.

    Args:
        spec: the columns.
        ids: the users and items.
        users: (N,) int64, users by number.
        histories: the items of each of these users by number, from 0, oldest first; the last of them are read.
    """

    in_memory = True

    def __init__(self, spec: Spec, ids: Ids, users: Tensor, histories: Lists) -> None:
        self.spec, self.ids, self.users, self.histories = spec, ids, users, histories

    def __len__(self) -> int:
        return len(self.users)

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        return {
            "user": self.users[index],
            "history": padded(self.histories, index, self.spec["history"], len(self.ids.users)),
        }

    def name_of(self, i: int) -> str:
        """Return the id of the user."""
        return f"user {self.ids.users[int(self.users[i])]}"
