"""Recommenders without an encoder, as baselines: popularity, nearest items, and EASE. All are fitted on a run's graph.

What is fitted gives scores of all items for users who are lists of items. Nothing of a user is fitted, so that the same
function serves users whom training never saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sslcli.evaluation.rank_metrics import measures
from sslcli.evaluation.sparse_rows import SparseRows
from sslcli.graph import Graph, Lists

Recommender = Callable[[Lists, Tensor], Tensor]  # the items of all users, the numbers of some (B,) -> scores (B, I)
PENALTIES = (25.0, 100.0, 400.0, 1600.0)  # lambda of EASE; Steck's (2019) were 200 to 1,000 on larger data
_ASKED = 1000  # users on whom lambda is chosen
_ELEMENTS = 2**24  # counts at a time


def popularity(graph: Graph) -> Recommender:
    """Return a recommender by how many users have an item, the same for everybody."""
    counts = graph.popularity.float()
    return lambda lists, users: counts.repeat(len(users), 1)


def item_knn(graph: Graph, *, neighbours: int = 100, shrink: float = 0.0) -> Recommender:
    """Return a recommender by the nearest items (Sarwar et al. 2001; Deshpande and Karypis 2004).

    Two items i and j of n_i and n_j users, of whom n_ij have both, have the similarity n_ij / (sqrt(n_i n_j) + shrink).
    An item's score is the sum of its similarities with those items of the user that are among its nearest.

    Args:
        graph: the training interactions.
        neighbours: how many nearest items each item has.
        shrink: a larger one trusts items of few users less.
    """
    norms = graph.popularity.double().sqrt()
    found = []
    for items, counts in co_occurrences(graph):
        similarity = counts.double() / (norms[items, None] * norms + shrink).clamp(min=1e-12)
        similarity[torch.arange(len(items)), items] = 0  # an item is no neighbour of itself
        found.append(similarity.topk(min(neighbours, graph.num_items), dim=1))
    count = len(found[0].values[0])
    nearest = SparseRows(
        torch.arange(graph.num_items + 1) * count,
        torch.cat([part.indices.flatten() for part in found]),
        torch.cat([part.values.flatten() for part in found]),
        graph.num_items,
    ).matrix()

    def scores(lists: Lists, users: Tensor) -> Tensor:
        have = lists.dense(users, graph.num_items).T.double().contiguous()
        return (nearest @ have).T.float().contiguous()  # sums of float64: equal sums are equal in any order

    return scores


def ease(graph: Graph, *, penalty: float) -> Recommender:
    """Return EASE (Steck 2019, arXiv:1905.03375, equation 8): the linear model of items by items, without its diagonal.

    With the counts G = X'X of the users X who have both items, and P the inverse of G + penalty, the weights are
    B_ij = -P_ij / P_jj, and 0 on the diagonal. A user's scores are the sum of the rows of the items that the user has.
    Memory and time are those of the inverse of a matrix of items by items, in float32.

    Args:
        graph: the training interactions.
        penalty: the L2 penalty lambda of the weights.
    """
    gram = torch.zeros(graph.num_items, graph.num_items)
    for items, counts in co_occurrences(graph):
        gram[items] = counts
    gram.diagonal().add_(penalty)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights = inverse.div_(-inverse.diagonal().clone())
    weights.fill_diagonal_(0)

    def scores(lists: Lists, users: Tensor) -> Tensor:
        have = SparseRows(lists.starts, lists.values, torch.ones(len(lists.values)), graph.num_items).take(users)
        return have.matrix() @ weights

    return scores


def chosen_penalty(graph: Graph, penalties: Sequence[float] = PENALTIES) -> float:
    """Return the lambda of EASE with the largest NDCG@10 for a tenth of the training pairs, fitted on the others.

    So it is chosen as ours are, on other pairs than those that are measured. Up to 1,000 users are asked. The draw has
    a fixed seed.
    """
    draw = torch.Generator().manual_seed(0)
    kept = torch.rand(graph.edges.shape[1], generator=draw) >= 0.1
    part = replace(graph, edges=graph.edges[:, kept])
    known, users = part.items_of_users(), torch.arange(graph.num_users)
    relevant = replace(graph, edges=graph.edges[:, ~kept]).items_of_users()
    asked = users[relevant.lengths > 0]
    asked = asked[torch.randperm(len(asked), generator=draw)[:_ASKED]]
    if not len(asked):
        return penalties[-1]
    nothing = torch.zeros_like(users)

    def ndcg(penalty: float) -> float:
        fitted = ease(part, penalty=penalty)
        found, _ = measures(lambda rows: fitted(known, rows), known, relevant, nothing, asked, graph.num_items, [10])
        return float(found["ndcg_at_10"].mean())

    return max(penalties, key=ndcg)


def co_occurrences(graph: Graph) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield some items (B,) at a time, in order, with how many users have both them and each item (B, I), float32."""
    of_items = Lists.of(graph.edges[1] - graph.num_users, graph.edges[0], graph.num_items)
    ones = torch.ones(len(of_items.values))
    users_of_items = SparseRows(of_items.starts, of_items.values, ones, graph.num_users).matrix()
    for items in torch.arange(graph.num_items).split(max(1, _ELEMENTS // max(graph.num_users, graph.num_items))):
        have = of_items.dense(items, graph.num_users).T.float().contiguous()
        yield items, (users_of_items @ have).T
