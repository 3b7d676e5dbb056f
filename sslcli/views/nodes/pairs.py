"""Views of a training pair: its user, its item, items that the user does not have, and noisy passes of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from sslcli.errors import UserError
from sslcli.graph import Graph
from sslcli.randomness import Randomness, fold
from sslcli.types import Spec, View
from sslcli.views.base import Views

USER, ITEM = "user", "item"  # the columns
PASSES = 2  # with noise=added


class UserItem(Views):
    """The user (view 0), the item (view 1), then negatives, and the user twice and the item twice with noise if added.

    A negative is uniform among the items that the user does not have in training, drawn for each sample and step alone:
    it is the r-th of these, where r is one random number. A user who has all items has none; the item itself takes its
    place, so that the difference of scores is 0 and has no gradient.

    What noise changes is the encoder's: ``noise`` and ``drop_edges`` of ``encoder=nodes``. All samples of a step have
    one noise a pass.

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads; those that are not named here are negatives.
        noise: ``none``; ``all``: user, item and negatives are of one noisy pass (XSimGCL); ``added``: user, user, item,
            item of two noisy passes follow (SimGCL, SGL).

    Raises:
        ValueError: the data have no graph, or the objective reads too few views.
    """

    field = USER
    taken: Tensor  # (E,) int64, of user u's j-th item s, in ascending order: u * (I + 1) + s - j
    starts: Tensor  # (U,) int64, where the items of each user begin
    lengths: Tensor  # (U,) int64, how many items each user has

    def __init__(
        self, view_spec: Spec, spec: Spec, num_views: int, *, noise: Literal["none", "all", "added"] = "none"
    ) -> None:
        super().__init__()
        graph = Graph.of(spec)
        for name in (USER, ITEM):
            if name not in spec:
                raise ValueError(
                    f"the dataset has no column '{name}', as its samples are no pairs; histories go with "
                    "encoder=history views=history objective=next_item (experiment=sasrec)"
                )
            if spec[name].kind != "id" or spec[name].vocab != graph.num_nodes:
                raise ValueError(
                    f"the column '{name}' is {spec[name]}, and these views are of ids of the graph's nodes"
                )
        self.num_users, self.num_items = graph.num_users, graph.num_items
        self.noise = noise
        added = 2 * PASSES if noise == "added" else 0
        self.negatives = num_views - 2 - added
        if self.negatives < 0:
            raise ValueError(
                f"noise={noise} makes {2 + added} views and negatives, and the objective reads {num_views}; let it "
                "read more (objective.reads), or choose other views"
            )
        have = graph.items_of_users()
        user = torch.repeat_interleave(torch.arange(self.num_users), have.lengths)
        before = torch.arange(len(user)) - have.starts[user]
        self.register_buffer("taken", user * (self.num_items + 1) + have.values - before, persistent=False)
        self.register_buffer("starts", have.starts[:-1], persistent=False)
        self.register_buffer("lengths", have.lengths, persistent=False)

    @torch.no_grad()
    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        user, item = columns[USER].long(), columns[ITEM].long()
        seed = self._seed(randomness, "all") if self.noise == "all" else None
        views = [View(user, USER, noise=seed), View(item, ITEM, noise=seed)]
        if self.negatives:
            negative = self._drawn(user, item, randomness)
            views += [View(column, ITEM, noise=seed) for column in negative.unbind(1)]
        if self.noise == "added":
            seeds = [self._seed(randomness, f"added{k}") for k in range(PASSES)]
            views += [View(x, name, noise=of) for x, name in ((user, USER), (item, ITEM)) for of in seeds]
        return views

    def evaluation_view(self, columns: Mapping[str, Tensor], field: str | None = None) -> View:
        name = field or self.field
        if name not in (USER, ITEM):
            raise UserError(f"views: no view is made of the column '{name}', only of {USER} and {ITEM}.")
        return View(columns[name].long(), name)

    @property
    def fields(self) -> tuple[str, ...]:
        added = (USER,) * PASSES + (ITEM,) * PASSES if self.noise == "added" else ()
        return (USER, ITEM, *(ITEM,) * self.negatives, *added)

    def _seed(self, randomness: Randomness, name: str) -> int:
        return fold(randomness.seed, randomness.step, f"{randomness.prefix}noise {name}")

    def _drawn(self, user: Tensor, item: Tensor, randomness: Randomness) -> Tensor:
        """Return the nodes (B, negatives) of items that the users (B,) do not have, beside their items (B,).

        Of the user's items s_0 < s_1 < ... those with s_j - j <= r come before the r-th item that is none of them.
        """
        free = self.num_items - self.lengths[user]
        number = (randomness.uniform("negatives", self.negatives).double() * free[:, None]).long()
        wanted = user[:, None] * (self.num_items + 1) + number
        before = torch.searchsorted(self.taken, wanted, right=True) - self.starts[user][:, None]
        return torch.where(free[:, None] > 0, self.num_users + number + before, item[:, None])
