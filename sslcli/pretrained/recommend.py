"""What a trained encoder recommends: scores of items by vectors, and the items of the largest scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.graph import Lists
from sslcli.types import Similarity

Scores = Callable[[Tensor], Tensor]  # numbers of some queries (B,) -> their scores (B, I) of all items, a new tensor
NEVER = -torch.inf  # the score of an item that is not ranked
_ELEMENTS = 2**22  # scores at a time


def scores_of(users: Tensor, items: Tensor, similarity: Similarity) -> Scores:
    """Return the scores by vectors of users (Q, D) and of items (I, D), as the objective compares them.

    They are computed in float64 and compared in float32: products that are equal but for rounding tie.
    """
    users, items = users.double(), items.double()
    if similarity == "cosine":
        users, items = F.normalize(users, dim=1), F.normalize(items, dim=1)
    return lambda part: (users[part] @ items.T).float()


def ranked(scores: Scores, seen: Lists, queries: Tensor, num_items: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some of the ``queries`` (Q,) at a time, with their scores (B, I), in which seen items are -inf."""
    for part in queries.split(max(1, _ELEMENTS // max(1, num_items))):
        found = scores(part)
        found[seen.pairs(part)] = NEVER
        yield part, found


def best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the first ``k`` items of each row of scores (B, I) as pairs: the row (K,), and the item (K,).

    Rows are in order, items from the largest score to the smallest; of equal ones the lower number comes first. Items
    with -inf are in no list.
    """
    last = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1:]
    rows, items = ((scores >= last) & (scores > NEVER)).nonzero(as_tuple=True)
    order = scores[rows, items].argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    rows, items = rows[order], items[order]
    lengths = torch.bincount(rows, minlength=len(scores))
    place = torch.arange(len(rows)) - (lengths.cumsum(0) - lengths)[rows]
    return rows[place < k], items[place < k]
