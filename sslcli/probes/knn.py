"""Weighted k-nearest-neighbour classification (Wu et al. 2018, section 3.4; as in DINO), beside its controls."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.datasets.base import Dataset, balanced
from sslcli.probes.base import Embed, Metric, Probe

_LADDER = (500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)


def knn_predict(
    bank: Tensor, labels: Tensor, queries: Tensor, *, k: int, temperature: float, chunk: int = 1024
) -> Tensor:
    """The class (Q,) of each query: its k most cosine-similar bank rows vote with weight exp(cos / temperature).

    Args:
        bank: (N, D) features.
        labels: (N,) int64 classes of the bank.
        queries: (Q, D) features.
        k: neighbours, at most N.
        temperature: of the vote.
        chunk: queries at a time; memory is chunk x N.
    """
    bank = F.normalize(bank.float(), dim=1)
    votes = torch.zeros(len(queries), int(labels.max()) + 1)
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        similarity, nearest = (F.normalize(queries[part].float(), dim=1) @ bank.T).topk(min(k, len(bank)))
        # Relative to the nearest, so that a small temperature does not overflow; the winner is the same.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes[part].scatter_add_(1, labels[nearest], weight)
    return votes.argmax(1)


def knn_accuracy(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, *, k: int, temperature: float) -> float:
    """The share of queries (Q, D) whose predicted class is ``truth`` (Q,)."""
    predicted = knn_predict(bank, labels, queries, k=k, temperature=temperature)
    return (predicted == truth).double().mean().item()


def principal_axes(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Variances (count,) and axes (D, count) of the largest principal components of centred rows (N, D).

    Exact up to 1,024 columns; above, a seeded randomised decomposition (Halko et al. 2011), as an exact
    one of a few thousand columns takes longer than the rest of the probe.
    """
    count = min(count, *centred.shape)
    if centred.shape[1] <= 1024:
        # In float64: dead and repeated columns keep the float32 solver from converging.
        variance, axes = torch.linalg.eigh((centred.T @ centred).double() / len(centred))
        return variance[-count:].clamp(min=0).float(), axes[:, -count:].float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, singular, axes = torch.svd_lowrank(centred, q=min(count + 32, *centred.shape), niter=4)
    return singular[:count] ** 2 / len(centred), axes[:, :count]


def whitened(bank: Tensor, queries: Tensor, *, components: int) -> tuple[Tensor, Tensor]:
    """Both on the bank's (N, D) largest principal components, each scaled to unit variance.

    Columns are standardised first, and a thousandth of the mean variance is added to each, so that
    directions without signal are not blown up.
    """
    mean, std = bank.mean(0), bank.std(0) + 1e-3 * bank.std() + 1e-12
    bank, queries = (bank - mean) / std, (queries - mean) / std
    variance, axes = principal_axes(bank, components)
    axes = axes / (variance + 1e-3).sqrt()
    return bank @ axes, queries @ axes


class KNN(Probe):
    """kNN of the held-out samples in the training samples, with raw, centred and PCA inputs beside it.

    Args:
        k: neighbours.
        temperature: of their vote.
        max_samples: most samples in bank and queries each, balanced over classes and fixed; ``all``, or
            ``auto`` for as many as the encoder embeds within the budget.
        whiten: components of a second reading, in which features and controls alike are PCA-whitened; it
            sees directions that a few large ones hide from the cosine. 0 leaves it out.
    """

    def __init__(
        self, *, k: int = 20, temperature: float = 0.07, max_samples: int | str | None = "auto", whiten: int = 256
    ) -> None:
        if k < 1 or temperature <= 0:
            raise ValueError("k must be at least 1 and temperature positive")
        if isinstance(max_samples, str) and max_samples not in ("auto", "all"):
            raise ValueError(f"max_samples={max_samples} must be a whole number, all or auto")
        if isinstance(max_samples, int) and max_samples < 1:
            raise ValueError(f"max_samples={max_samples} must be at least 1")
        if whiten < 0:
            raise ValueError(f"whiten={whiten} must be a number of components, or 0")
        self.k, self.temperature, self.whiten = k, temperature, whiten
        self.max_samples = "all" if max_samples is None else max_samples

    def __call__(self, dataset: Dataset, trained: Embed, untrained: Embed, budget: float) -> dict[str, Metric]:
        held_out = dataset.held_out
        if dataset.labels is None or held_out is None or held_out.labels is None:
            return {}
        count = self._count(dataset, held_out, trained, budget)
        bank, queries = balanced(dataset.labels, count), balanced(held_out.labels, count)

        pairs = _inputs(dataset, bank, held_out, queries)
        pairs["random_init"] = (untrained(dataset, bank), untrained(held_out, queries))
        pairs["trained"] = (trained(dataset, bank), trained(held_out, queries))
        labels, truth = dataset.labels[bank], held_out.labels[queries]
        protocol = (
            f"weighted {self.k}-NN, cosine, vote temperature {self.temperature}, "
            f"bank {len(bank):,} train, queries {len(queries):,} held out"
        )

        def metric(protocol: str, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Metric:
            scores = {}
            for name, pair in pairs.items():
                features, asked = change(*pair)
                scores[name] = knn_accuracy(features, labels, asked, truth, k=self.k, temperature=self.temperature)
            return Metric(scores.pop("trained"), protocol, samples=count, controls=scores)

        metrics = {"knn_top1": metric(protocol, lambda features, asked: (features, asked))}
        if self.whiten:
            text = f"{protocol}, all rows PCA-whitened to at most {self.whiten}, fitted on the bank"
            metrics["knn_whitened_top1"] = metric(text, lambda *pair: whitened(*pair, components=self.whiten))
        return metrics

    def _count(self, dataset: Dataset, held_out: Dataset, embed: Embed, budget: float) -> int:
        whole = max(len(dataset), len(held_out))
        if isinstance(self.max_samples, int):
            return self.max_samples
        if self.max_samples == "all":
            return whole
        trial = torch.arange(min(256, len(dataset)))
        embed(dataset, trial)  # the first pass warms up
        start = time.perf_counter()
        embed(dataset, trial)
        per_sample = (time.perf_counter() - start) / len(trial)
        # Bank and queries, each through the trained and the untrained encoder, and as much again for the votes.
        affordable = budget / per_sample / 8
        if affordable >= whole:
            return whole
        return max([n for n in _LADDER if n <= affordable], default=_LADDER[0])


def _inputs(dataset: Dataset, bank: Tensor, held_out: Dataset, queries: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What the input itself is worth: (bank, queries) as raw numbers, centred, and on 64 principal components.

    Empty for columns of ids, which have no geometry.
    """
    name, column = next(iter(dataset.spec.items()))
    if column.vocab:
        return {}
    raw_bank, raw_queries = _raw(dataset, bank, name), _raw(held_out, queries, name)
    mean = raw_bank.mean(0)
    centred_bank, centred_queries = raw_bank - mean, raw_queries - mean
    inputs = {"raw_input": (raw_bank, raw_queries), "centred": (centred_bank, centred_queries)}
    _, axes = principal_axes(centred_bank, 64)
    inputs[f"pca{axes.shape[1]}"] = (centred_bank @ axes, centred_queries @ axes)
    return inputs


def _raw(dataset: Dataset, index: Tensor, name: str) -> Tensor:
    """The column as float rows; images above 32 pixels are averaged down to 32, to bound memory."""
    parts = []
    for part in index.split(1024):
        x = dataset.fetch(part)[name].float()
        if x.dim() == 4 and x.shape[-1] > 32:
            x = F.interpolate(x, size=(32, 32), mode="area")
        parts.append(x.flatten(1))
    return torch.cat(parts)
