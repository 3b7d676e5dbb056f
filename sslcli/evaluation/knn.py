"""Weighted k-nearest-neighbour classification (Wu et al. 2018, section 3.4; as in DINO), with baselines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.config.ranges import Count, Natural, TemperatureValue
from sslcli.data.base import Dataset
from sslcli.data.ram_cache import free_memory
from sslcli.data.selection import balanced
from sslcli.evaluation.base import BANK, QUERIES, Metric, Probe
from sslcli.evaluation.baselines import Compared, Rows, inputs, reduced
from sslcli.evaluation.classification import predicted_metrics
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.pca import whitened
from sslcli.evaluation.sparse_rows import AnyRows, SparseRows, nearest_rows
from sslcli.evaluation.tfidf import in_protocol
from sslcli.evaluation.votes import shares, vote
from sslcli.run_dir.console import progress

_LADDER = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)
_BANK_ROWS, _BANK_BYTES = 65_536, 2**26  # of a piece of the bank
_MEMORY = 0.5  # share of the free memory that features may take if the probe chooses their number


def nearest(
    bank: Tensor,
    queries: Tensor,
    k: int,
    *,
    chunk: int = 1024,
    bank_chunk: int | None = None,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the cosine similarities (Q, k) of each query's nearest bank rows, descending, and their positions (Q, k).

    Args:
        bank: (N, D) features.
        queries: (Q, D) features.
        k: number of neighbours; if N is smaller, N.
        chunk: queries at a time.
        bank_chunk: bank rows at a time; memory on the device is chunk x bank_chunk in addition to the two pieces. None
            is 65,536, or fewer where they would take more than 64 MiB.
        device: device of the products; None is that of the features.
    """
    device = device or bank.device
    bank_chunk = bank_chunk or max(1, min(_BANK_ROWS, _BANK_BYTES // (4 * max(1, bank.shape[1]))))
    bar = progress("searching neighbours", len(bank) * len(queries), "pairs")
    best: list[tuple[Tensor, Tensor]] = []  # per chunk of queries: its nearest among the bank rows so far
    for start in range(0, len(bank), bank_chunk):
        rows = F.normalize(bank[start : start + bank_chunk].to(device).float(), dim=1)
        for number, part in enumerate(queries.split(chunk)):
            similarity, position = (F.normalize(part.to(device).float(), dim=1) @ rows.T).topk(min(k, len(rows)))
            found = similarity.cpu(), position.cpu() + start
            bar.update(len(rows) * len(part))
            if start == 0:
                best.append(found)
                continue
            similarity, position = (torch.cat(pair, 1) for pair in zip(best[number], found))
            similarity, order = similarity.topk(min(k, similarity.shape[1]))
            best[number] = similarity, position.gather(1, order)
    bar.close()
    similarities, positions = zip(*best)
    return torch.cat(similarities), torch.cat(positions)


def knn_accuracy(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    truth: Tensor,
    *,
    ks: Sequence[int],
    temperature: float,
    device: torch.device | None = None,
) -> list[float]:
    """Return the accuracy of ``knn_classes`` for each number of neighbours; ``truth`` (Q,) are the queries' classes."""
    predicted = knn_classes(bank, labels, queries, ks=ks, temperature=temperature, device=device)
    return [(guess == truth).double().mean().item() for guess in predicted]


def knn_classes(
    bank: AnyRows,
    labels: Tensor,
    queries: AnyRows,
    *,
    ks: Sequence[int],
    temperature: float,
    device: torch.device | None = None,
) -> list[Tensor]:
    """Return the classes (Q,) that the kNN vote predicts for ``queries``, for each number of neighbours.

    Args:
        bank: (N, D) features.
        labels: (N,) int64 classes of the bank; with several labels a sample (N, C) bool, and the result is, for each
            query and class, the weight of the neighbours that have it, (Q, C).
        queries: (Q, D) features.
        ks: numbers of neighbours; one search serves all of them.
        temperature: temperature of the vote.
        device: device of the search; None is that of the features.
    """
    if isinstance(bank, SparseRows) and isinstance(queries, SparseRows):
        similarity, position = nearest_rows(bank, queries, max(ks))
    else:
        similarity, position = nearest(cast(Tensor, bank), cast(Tensor, queries), max(ks), device=device)
    classes = labels[position]
    if labels.dim() == 2:
        return [shares(similarity[:, :k], classes[:, :k], temperature) for k in ks]
    num_classes = int(labels.max()) + 1
    return [vote(similarity[:, :k], classes[:, :k], temperature=temperature, num_classes=num_classes) for k in ks]


class KNN(Probe):
    """kNN classification of held-out samples by training samples; raw, centred and PCA inputs are baselines.

    Args:
        k: number of neighbours; of several numbers the first is the headline, the others are named ``knn_top1_k200``.
        temperature: temperature of the vote.
        max_samples: largest number of samples in bank and queries each, balanced over classes and fixed; ``all``, or
            ``auto`` for as many as the encoder embeds within the budget.
        whiten: components of a second metric, for which features and baselines are PCA-whitened. It weights
            all directions equally, where a few large ones dominate the plain cosine. 0 leaves it out.
    """

    def __init__(
        self,
        *,
        k: int | list[int] = 20,
        temperature: TemperatureValue = 0.07,
        max_samples: Count | str | None = "auto",
        whiten: Natural = 256,
    ) -> None:
        self.ks = [k] if isinstance(k, int) else list(k)
        if not self.ks or min(self.ks) < 1 or len({*self.ks}) < len(self.ks):
            raise ValueError(f"k={k} must be a number of neighbours, at least 1, or several different ones")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must be positive")
        if isinstance(max_samples, str) and max_samples not in ("auto", "all"):
            raise ValueError(f"max_samples={max_samples} must be a whole number, all or auto")
        if isinstance(max_samples, int) and max_samples < 1:
            raise ValueError(f"max_samples={max_samples} must be at least 1")
        if whiten < 0:
            raise ValueError(f"whiten={whiten} must be a number of components, or 0")
        self.temperature, self.whiten = temperature, whiten
        self.max_samples = "all" if max_samples is None else max_samples
        self._num_queries: int | None = None  # of the cheap form, which has fewer queries than bank samples

    def cheap(self) -> Probe:
        """Return the probe with the first k on 2,000 bank samples and 1,000 queries, without whitening."""
        form = KNN(k=self.ks[0], temperature=self.temperature, max_samples=_cheaper(self.max_samples, BANK), whiten=0)
        form._num_queries = _cheaper(self.max_samples, QUERIES)
        return form

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        labelled, held_out = context.labelled(), context.dataset.held_out
        if labelled is None or held_out is None:
            return {}
        count = self._count(context)
        bank, queries = balanced(labelled[0], count), balanced(labelled[1], self._num_queries or count)
        labels, truth = labelled[0][bank], labelled[1][queries]
        plain: dict[str, list[Tensor]] = {}  # by representation, for each k the predicted classes
        white: dict[str, list[Tensor]] = {}
        for name, (rows, query_rows) in self._representations(context, bank, held_out, queries):
            plain[name] = self._classes(rows, labels, query_rows, context)
            if self.whiten and isinstance(rows, Tensor):
                pair = whitened(rows, cast(Tensor, query_rows), components=self.whiten)
                white[name] = self._classes(pair[0], labels, pair[1], context)
                del pair
            del rows, query_rows  # released before the next are read: each may fill much of the memory
        sizes = f"bank {len(bank):,} train, queries {len(queries):,} held out"
        whitening = f", all rows PCA-whitened to at most {self.whiten}, fitted on the bank"
        found: dict[str, Metric] = {}
        top1 = "top1" if truth.dim() == 1 else "map"
        for start, guesses, suffix in (("knn", plain, in_protocol(context)), ("knn_whitened", white, whitening)):
            for i, k in enumerate(self.ks if guesses else ()):
                name = f"{start}_{top1}" if k == self.ks[0] else f"{start}_{top1}_k{k}"
                found |= predicted_metrics(
                    context,
                    name,
                    {representation: each[i] for representation, each in guesses.items()},
                    truth,
                    f"weighted {min(k, len(bank))}-NN, cosine, vote temperature {self.temperature}, {sizes}{suffix}",
                    headline=name == f"knn_{top1}",
                    samples=count if self.max_samples == "auto" else None,
                )
        return found

    def _representations(
        self, context: ProbeContext, bank: Tensor, held_out: Dataset, queries: Tensor
    ) -> Iterator[tuple[str, Compared]]:
        """Yield the representations to search in by name; each is released before the next is computed."""
        for name, rows in inputs(context, bank, held_out, queries):
            made = reduced(cast(Rows, rows)) if name == "raw_input" else iter([(name, rows)])
            del rows
            yield from made

    def _classes(self, bank: AnyRows, labels: Tensor, queries: AnyRows, context: ProbeContext) -> list[Tensor]:
        device = context.compute.device
        return knn_classes(bank, labels, queries, ks=self.ks, temperature=self.temperature, device=device)

    def _count(self, context: ProbeContext) -> int:
        dataset, held_out = context.dataset, context.queried
        everything = max(len(dataset), len(held_out))
        if isinstance(self.max_samples, int):
            return self.max_samples
        if self.max_samples == "all":
            return everything
        if context.settled is not None:
            return context.settled
        trial = torch.arange(min(256, len(dataset)))
        context.embed("trained", dataset, trial)  # the first pass warms up
        start = time.perf_counter()
        context.embed("trained", dataset, trial)
        per_sample = (time.perf_counter() - start) / len(trial)
        # Time: bank and queries through every encoder, and as much again for the votes.
        affordable = context.budget / per_sample / (4 * len(context.encoders))
        # Memory: bank and queries of every encoder, which are kept for other probes, and copies for whitening.
        width = max(encoder.dim for encoder in context.encoders.values())
        copies = 2 * len(context.encoders) + 4
        affordable = min(affordable, _MEMORY * free_memory() / (4 * width * copies))
        if affordable >= everything:
            return everything
        return max([n for n in _LADDER if n <= affordable], default=_LADDER[0])


def _cheaper(max_samples: int | str, most: int) -> int:
    return min(max_samples, most) if isinstance(max_samples, int) else most
