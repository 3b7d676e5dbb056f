"""Ranking: what of the held-out items of each user is at the top of all items that the user has not seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.config.ranges import Count, NotNegative, Positive
from sslcli.data.selection import drawn
from sslcli.encoders.base import Recommends
from sslcli.errors import UserError
from sslcli.evaluation.base import QUERIES, Metric, Probe, compared
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.rank_metrics import measures
from sslcli.evaluation.recommenders import PENALTIES, Recommender, chosen_penalty, ease, item_knn, popularity
from sslcli.features import evaluating
from sslcli.graph import Graph, Rankings
from sslcli.pretrained.recommend import Scores, scores_of
from sslcli.run_dir.formatting import SHARE

MOST_ITEMS = 20_000  # of EASE, which inverts a matrix of items by items
_MOST_CHOSEN = 5000  # items for whom its lambda is chosen, which inverts one for each choice
_LAMBDA = 400.0  # above
_WORDS = {  # of each metric beside what all have in common
    "ndcg": ("", ""),
    "recall": ("; the share of a user's held-out items that is among them", SHARE),
    "mrr": ("; 1 / rank of the first one that is held out", ""),
    "hit": ("; the share of users with a held-out item among them", SHARE),
    "precision": ("; the share of them that is held out", SHARE),
}


class Ranking(Probe):
    """NDCG, recall, MRR, hits, precision and coverage of the first k of all items, without those a user has seen.

    A user's vector is the feature of the sample that shows the user. Items with equal scores count by the mean over
    their orders. An item to find that training never saw is never found; a user with no other counts as 0. Baselines
    are popularity, the nearest items and EASE, fitted on the training interactions; they read the same items of a user
    as the encoder.

    Args:
        k: the lengths of the lists; the headline is NDCG at the first.
        max_samples: largest number of users; null takes all.
        neighbours: nearest items of each item in the baseline itemknn; null leaves it out.
        shrink: its shrinkage of the cosines of items of few users.
        ease: lambda of the baseline EASE; auto chooses it on a tenth of the training pairs; null leaves it out.
    """

    def __init__(
        self,
        *,
        k: Sequence[Count] = (10,),
        max_samples: Count | None = 10_000,
        neighbours: Count | None = 100,
        shrink: NotNegative = 0.0,
        ease: Positive | Literal["auto"] | None = "auto",
    ) -> None:
        if not k:
            raise ValueError("k=[] measures nothing; give the lengths of the lists, such as [10,20]")
        self.k, self.max_samples = tuple(dict.fromkeys(k)), max_samples
        self.neighbours, self.shrink, self.ease = neighbours, shrink, ease
        self._ease = ""  # what lambda was, in words

    def cheap(self) -> Probe:
        """Return the probe on 1,000 users without the baselines that are fitted."""
        return Ranking(k=self.k, max_samples=min(self.max_samples or QUERIES, QUERIES), neighbours=None, ease=None)

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        rankings = context.queried.rankings
        if rankings is None or context.dataset.held_out is None:
            context.leave_out("ranking: these data have no held-out interactions of users with items")
            return {}
        total = rankings.relevant.lengths + rankings.unknown
        asked = torch.nonzero(total)[:, 0]
        if not len(asked):
            context.leave_out("ranking: no user has a held-out item")
            return {}
        graph = Graph.of(context.dataset.spec)
        count = len(asked) + rankings.lost
        chosen = drawn(count, count if self.max_samples is None else self.max_samples).sort().values
        queries = asked[chosen[chosen < len(asked)]]
        scores: dict[str, Scores] = {name: _by_vectors(context, name, rankings, queries) for name in context.encoders}
        scores |= {name: _bound(each, rankings) for name, each in self._baselines(context, graph).items()}
        found = {
            name: measures(each, rankings.seen, rankings.relevant, rankings.unknown, queries, graph.num_items, self.k)
            for name, each in scores.items()
        }
        lost = len(chosen) - len(queries)
        for metrics, _ in found.values():
            metrics.update({key: F.pad(values, (0, lost)) for key, values in metrics.items()})
        return self._metrics(context, found, self._protocol(context, rankings, queries, lost, count))

    def _baselines(self, context: ProbeContext, graph: Graph) -> dict[str, Recommender]:
        """Fit the baselines; a note says how long each took, as their quality for their time is what they are for."""
        made: dict[str, Callable[[], Recommender]] = {"popularity": lambda: popularity(graph)}
        if self.neighbours is not None:
            neighbours = self.neighbours
            made["itemknn"] = lambda: item_knn(graph, neighbours=neighbours, shrink=self.shrink)
        if self.ease is not None and graph.num_items <= MOST_ITEMS:
            made["ease"] = lambda: ease(graph, penalty=self._penalty(graph))
        elif self.ease is not None:
            context.leave_out(
                f"ranking: EASE is left out, as it inverts a matrix of items by items, and of {graph.num_items:,} that "
                f"takes long and much memory (limit {MOST_ITEMS:,})"
            )
        found, seconds = {}, {}
        for name, make in made.items():
            start = time.perf_counter()
            found[name] = make()
            seconds[name] = time.perf_counter() - start
        if len(found) > 1:
            told = ", ".join(f"{name} {took:.2f} s" for name, took in seconds.items())
            context.notes.append(f"ranking: baselines fitted on {graph.edges.shape[1]:,} interactions: {told}")
        return found

    def _penalty(self, graph: Graph) -> float:
        """Return the lambda of EASE."""
        if self.ease != "auto":
            assert self.ease is not None
            self._ease = f"lambda {self.ease:g}"
            return self.ease
        if graph.num_items > _MOST_CHOSEN:
            self._ease = f"lambda {_LAMBDA:g}, as to choose it takes long above {_MOST_CHOSEN:,} items"
            return _LAMBDA
        penalty = chosen_penalty(graph)
        among = ", ".join(f"{each:g}" for each in PENALTIES)
        self._ease = f"lambda {penalty:g}, chosen among {among} on a tenth of the training pairs"
        return penalty

    def _protocol(self, context: ProbeContext, rankings: Rankings, queries: Tensor, lost: int, total: int) -> str:
        """Return what all metrics have in common, in words; ``lost`` users beside ``queries`` count as 0."""
        count, num_items = len(queries) + lost, Graph.of(context.dataset.spec).num_items
        users = f"{total:,} users" if count == total else f"{count:,} of {total:,} users"
        product = "dot product" if context.similarity == "dot" else "cosine"
        unseen = int(rankings.unknown[queries].sum())
        told = f"; {unseen:,} held-out items that training never saw count as not found" if unseen else ""
        told += f"; {lost:,} users have only items that training never saw, and count as 0" if lost else ""
        if self.neighbours is not None:
            told += f"; itemknn: cosine, {self.neighbours} neighbours, shrink {self.shrink:g}"
        told += f"; ease: {self._ease}" if self._ease else ""
        return (
            f"all {num_items:,} items but the seen ones ranked by {product} for {users}, ties by the mean over "
            f"their orders; {rankings.protocol}{told}"
        )

    def _metrics(
        self,
        context: ProbeContext,
        found: Mapping[str, tuple[dict[str, Tensor], dict[str, float]]],
        protocol: str,
    ) -> dict[str, Metric]:
        metrics = {}
        for k in self.k:
            for name, (words, unit) in _WORDS.items():
                key = f"{name}_at_{k}"
                metrics[key] = compared(
                    context,
                    {who: each[key] for who, (each, _) in found.items()},
                    f"first {k} of {protocol}{words}",
                    unit=unit,
                    higher_is_better=True,
                    headline=(name, k) == ("ndcg", self.k[0]),
                )
            key = f"coverage_at_{k}"
            covered = {who: coverage[key] for who, (_, coverage) in found.items()}
            words = f"first {k} of {protocol}; the share of all items that is among those of some user"
            metrics[key] = compared(context, covered, words, unit=SHARE, higher_is_better=None)
        return metrics


def _by_vectors(context: ProbeContext, name: str, rankings: Rankings, queries: Tensor) -> Scores:
    """Return the scores by the vectors of an encoder, of the ``queries`` only.

    Raises:
        UserError: the encoder has no vectors of items.
    """
    encoder = context.encoders[name]
    if not isinstance(encoder, Recommends):
        raise UserError(
            f"probe: {type(encoder).__name__} has no vectors of items to rank. Use encoder=nodes, towers or history, "
            "or another probe."
        )
    with torch.inference_mode(), evaluating(encoder), context.compute.autocast():
        items = encoder.item_vectors().detach().float().cpu()
    users = context.features(name, context.queried, rankings.queries[queries])
    scores = scores_of(users, items, context.similarity)
    place = torch.zeros(len(rankings.queries), dtype=torch.int64)
    place[queries] = torch.arange(len(queries))
    return lambda part: scores(place[part])


def _bound(recommender: Recommender, rankings: Rankings) -> Scores:
    return lambda part: recommender(rankings.known, part)
