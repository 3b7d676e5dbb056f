"""Metrics of ranked lists: recall, NDCG, reciprocal rank, hits and precision of each user, and the items recommended.

Items with equal scores count by the mean over all their orders. So constant scores read what chance reads, and a list
is not better because the item that is looked for happens to have a low number. The means are exact: no order is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcli.graph import Lists
from sslcli.pretrained.recommend import NEVER, Scores, ranked

NAMES = ("ndcg", "recall", "mrr", "hit", "precision")


@dataclass(frozen=True)
class Tops:
    """What of the scores of B queries is needed for their first ``k`` places.

    Args:
        first: (B, k) the largest scores, in descending order.
        last: (B,) the score of the last place; only ties with this score are cut.
        cut: (B,) int64, how many items have this score; 0 where all items that are ranked have a place.
        items: (K,) int64, all items with this score or a larger one, of one query after the other.
        shares: (K,) float64, in which share of the orders of ties each of them has a place.
    """

    first: Tensor
    last: Tensor
    cut: Tensor
    items: Tensor
    shares: Tensor

    @classmethod
    def of(cls, scores: Tensor, k: int) -> Tops:
        """Return the first ``k`` places by scores (B, I), or as many as there are items; -inf has none."""
        first = scores.topk(min(k, scores.shape[1]), dim=1).values
        last = first[:, -1]
        rows, items = ((scores >= last[:, None]) & (scores > NEVER)).nonzero(as_tuple=True)
        tied = scores[rows, items] == last[rows]
        cut = torch.bincount(rows[tied], minlength=len(scores))
        left = k - (first > last[:, None]).sum(1)  # places for those that tie with the last one
        shares = torch.where(tied, (left[rows].double() / cut[rows].clamp(min=1)).clamp(max=1), 1.0)
        return cls(first, last, cut, items, shares)


def measures(
    scores: Scores, seen: Lists, relevant: Lists, unknown: Tensor, queries: Tensor, num_items: int, cuts: Sequence[int]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the metrics of each query, and coverage, at each k in ``cuts``.

    With R items to find, of which h are among the first k: recall is h / R, precision h / k, hit whether h > 0, and MRR
    1 / rank of the first one, 0 beyond k. NDCG is the sum of 1 / log2(rank + 1) over those h, divided by that of the
    first min(k, R) ranks (Järvelin and Kekäläinen 2002, with gains of 0 and 1). Coverage is the share of all items that
    are among the first k of somebody. RecBole's metrics of these names are the same, where no scores tie.

    Args:
        scores: of queries; see ``Scores``.
        seen: items that are not ranked, of each query.
        relevant: items to find, of each query; a seen one is never found.
        unknown: how many more are to be found of each query that no list can have.
        queries: (Q,) which queries to measure; each has at least one item to find.
        num_items: the number of items.
        cuts: each k.

    Returns:
        ``ndcg_at_10`` and so on, (Q,) float64 each; and ``coverage_at_10`` and so on.
    """
    found: dict[str, list[Tensor]] = {}
    absent = {k: torch.zeros(num_items, dtype=torch.float64) for k in cuts}  # log of the chance to be in no list
    for part, table in ranked(scores, seen, queries, num_items):
        total = relevant.lengths[part] + unknown[part]
        for k in cuts:
            tops = Tops.of(table, k)
            absent[k].index_add_(0, tops.items, torch.log1p(-tops.shares))
            query, item = relevant.pairs(part)
            for name, values in _of_lists(tops, query, table[query, item], total, k).items():
                found.setdefault(f"{name}_at_{k}", []).append(values)
    coverage = {f"coverage_at_{k}": float((1 - absent[k].exp()).mean()) for k in cuts}
    return {name: torch.cat(parts) for name, parts in found.items()}, coverage


def _of_lists(tops: Tops, query: Tensor, score: Tensor, total: Tensor, k: int) -> dict[str, Tensor]:
    """Return the metrics (B,) of some queries.

    Args:
        tops: their first ``k`` places.
        query: (K,) the query of each item to find.
        score: (K,) its score.
        total: (B,) how many items each query is to find.
        k: the length of the lists.
    """
    inside = (score >= tops.last[query]) & (score > NEVER)  # perhaps among the first k
    query, score = query[inside], score[inside]
    above = (tops.first[query] > score[:, None]).sum(1)
    whole = (tops.first[query] == score[:, None]).sum(1)  # how many have this score, unless the tie is cut
    tied = torch.where(score == tops.last[query], tops.cut[query], whole)

    places = torch.arange(k + 1)
    gains = torch.where(places > 0, 1 / (places + 1).double().log2(), 0).cumsum(0)  # of the first 0, 1, ... k ranks
    upto = (above + tied).clamp(max=k)  # the last rank of the tied items within the list
    count = len(total)
    hits = _sums(query, (upto - above) / tied.double(), count)
    dcg = _sums(query, (gains[upto] - gains[above]) / tied, count)
    mrr, hit = _first_hit(query, above, tied, count, k)
    return {
        "ndcg": dcg / gains[total.clamp(max=k)],
        "recall": hits / total,
        "mrr": mrr,
        "hit": hit,
        "precision": hits / k,
    }


def _first_hit(query: Tensor, above: Tensor, tied: Tensor, count: int, k: int) -> tuple[Tensor, Tensor]:
    """Return the mean of 1 / rank of the first hit (B,), and the share of orders in which there is one (B,).

    The first hit is one of the r items to find with the best score. In a random order of the m items of that score,
    all of the first j are others with probability ((m - r) / m) ((m - r - 1) / (m - 1)) ... (j factors).
    """
    best = torch.full((count,), k).scatter_reduce(0, query, above, "amin")  # items above; k where nothing is found
    is_best = above == best[query]
    wanted = torch.zeros(count, dtype=torch.int64).index_add(0, query, is_best.long())
    group = torch.ones(count, dtype=torch.int64).scatter_reduce(0, query[is_best], tied[is_best], "amax")
    none_yet, mrr = torch.ones(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    for place in range(min(k, int(group.max()) if count else 0)):
        left = (group - place).clamp(min=1).double()
        still = none_yet * (1 - wanted / left).clamp(min=0)
        still = torch.where((best + place < k) & (place < group), still, none_yet)
        mrr += (none_yet - still) / (best + place + 1)
        none_yet = still
    return mrr, 1 - none_yet


def _sums(rows: Tensor, values: Tensor, count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.float64).index_add(0, rows, values.double())
