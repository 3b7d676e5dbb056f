"""Weighted k-nearest-neighbour classification (Wu et al. 2018, section 3.4; as in DINO), beside its controls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.base import Dataset, balanced
from sslcli.data.ram_cache import free_memory
from sslcli.evaluation.base import Metric, Probe, compared
from sslcli.evaluation.baselines import Rows, inputs, reduced
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.pca import whitened

_LADDER = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)
_BANK_PIECE = 65_536
_MEMORY = 0.5  # share of the free memory that features may take where their number is left to the probe


def nearest(
    bank: Tensor,
    queries: Tensor,
    k: int,
    *,
    chunk: int = 1024,
    bank_chunk: int = _BANK_PIECE,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosine similarities (Q, k) of each query's nearest bank rows, falling, and their positions in the bank.

    Args:
        bank: (N, D) features.
        queries: (Q, D) features.
        k: neighbours; N where there are fewer.
        chunk: queries at a time.
        bank_chunk: bank rows at a time; memory on the device is chunk x bank_chunk beside the two pieces.
        device: where to multiply; null is where the features are.
    """
    device = device or bank.device
    best: list[tuple[Tensor, Tensor]] = []  # of each chunk of queries, among the bank rows so far
    for start in range(0, len(bank), bank_chunk):
        rows = F.normalize(bank[start : start + bank_chunk].to(device).float(), dim=1)
        for number, part in enumerate(queries.split(chunk)):
            similarity, place = (F.normalize(part.to(device).float(), dim=1) @ rows.T).topk(min(k, len(rows)))
            found = similarity.cpu(), place.cpu() + start
            if start == 0:
                best.append(found)
                continue
            similarity, place = (torch.cat(pair, 1) for pair in zip(best[number], found))
            similarity, order = similarity.topk(min(k, similarity.shape[1]))
            best[number] = similarity, place.gather(1, order)
    similarities, places = zip(*best)
    return torch.cat(similarities), torch.cat(places)


def vote(similarity: Tensor, labels: Tensor, *, temperature: float, num_classes: int) -> Tensor:
    """The class (Q,) for which most weight exp(cos / temperature) is cast.

    Args:
        similarity: (Q, k) of the neighbours, falling.
        labels: (Q, k) their classes.
        temperature: of the vote.
        num_classes: above every label.
    """
    # Relative to the nearest, so that a small temperature does not overflow; the winner is the same.
    weight = ((similarity - similarity[:, :1]) / temperature).exp()
    return torch.zeros(len(labels), num_classes).scatter_add_(1, labels, weight).argmax(1)


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
    """The share of queries (Q, D) that are given their class ``truth`` (Q,), for each number of neighbours.

    Args:
        bank: (N, D) features.
        labels: (N,) int64 classes of the bank.
        queries: (Q, D) features.
        truth: (Q,) their classes.
        ks: numbers of neighbours, all read from one search.
        temperature: of the vote.
        device: where to search; null is where the features are.
    """
    similarity, place = nearest(bank, queries, max(ks), device=device)
    classes = labels[place]
    predicted = (
        vote(similarity[:, :k], classes[:, :k], temperature=temperature, num_classes=int(labels.max()) + 1) for k in ks
    )
    return [(guess == truth).double().mean().item() for guess in predicted]


class KNN(Probe):
    """kNN of the held-out samples in the training samples, with raw, centred and PCA inputs beside it.

    Args:
        k: neighbours; of several numbers the first is the headline, the others are named ``knn_top1_k200``.
        temperature: of their vote.
        max_samples: most samples in bank and queries each, balanced over classes and fixed; ``all``, or
            ``auto`` for as many as the encoder embeds within the budget.
        whiten: components of a second reading, in which features and controls alike are PCA-whitened; it
            sees directions that a few large ones hide from the cosine. 0 leaves it out.
    """

    def __init__(
        self,
        *,
        k: int | list[int] = 20,
        temperature: float = 0.07,
        max_samples: int | str | None = "auto",
        whiten: int = 256,
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

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        labelled, held_out = context.labelled(), context.dataset.held_out
        if labelled is None or held_out is None:
            return {}
        count = self._count(context)
        bank, queries = (balanced(labels, count) for labels in labelled)
        labels, truth = labelled[0][bank], labelled[1][queries]
        plain: dict[str, list[float]] = {}
        white: dict[str, list[float]] = {}
        for name, (rows, asked) in self._readings(context, bank, held_out, queries):
            plain[name] = self._accuracies(rows, labels, asked, truth, context)
            if self.whiten:
                pair = whitened(rows, asked, components=self.whiten)
                white[name] = self._accuracies(pair[0], labels, pair[1], truth, context)
        sizes = f"bank {len(bank):,} train, queries {len(queries):,} held out"
        how = f", all rows PCA-whitened to at most {self.whiten}, fitted on the bank"
        found = {}
        for title, values, suffix in (("knn_top1", plain, ""), ("knn_whitened_top1", white, how)):
            for place, k in enumerate(self.ks if values else ()):
                found[title if k == self.ks[0] else f"{title}_k{k}"] = compared(
                    context,
                    {name: accuracies[place] for name, accuracies in values.items()},
                    f"weighted {min(k, len(bank))}-NN, cosine, vote temperature {self.temperature}, {sizes}{suffix}",
                    samples=count if self.max_samples == "auto" else None,
                )
        return found

    def _readings(
        self, context: ProbeContext, bank: Tensor, held_out: Dataset, queries: Tensor
    ) -> Iterator[tuple[str, Rows]]:
        """What neighbours are sought in, by name; one is let go before the next is made."""
        for name, rows in inputs(context, bank, held_out, queries):
            if name == "raw_input":
                yield from reduced(rows)
            else:
                yield name, rows

    def _accuracies(
        self, bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, context: ProbeContext
    ) -> list[float]:
        return knn_accuracy(
            bank, labels, queries, truth, ks=self.ks, temperature=self.temperature, device=context.compute.device
        )

    def _count(self, context: ProbeContext) -> int:
        dataset, held_out = context.dataset, context.queried
        whole = max(len(dataset), len(held_out))
        if isinstance(self.max_samples, int):
            return self.max_samples
        if self.max_samples == "all":
            return whole
        if context.settled is not None:
            return context.settled
        trial = torch.arange(min(256, len(dataset)))
        context.embed("trained", dataset, trial)  # the first pass warms up
        start = time.perf_counter()
        context.embed("trained", dataset, trial)
        per_sample = (time.perf_counter() - start) / len(trial)
        # Bank and queries, each through every encoder, and as much again for the votes.
        affordable = context.budget / per_sample / (4 * len(context.encoders))
        # In memory: bank and queries of every encoder, which other probes may read again, and copies while whitening.
        width = max(encoder.dim for encoder in context.encoders.values())
        copies = 2 * len(context.encoders) + 4
        affordable = min(affordable, _MEMORY * free_memory() / (4 * width * copies))
        if affordable >= whole:
            return whole
        return max([n for n in _LADDER if n <= affordable], default=_LADDER[0])
