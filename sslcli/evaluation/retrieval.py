"""Retrieval: for each held-out sample, at which rank one of its two columns finds the other, such as text and title."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.config.ranges import Count
from sslcli.data.base import Dataset
from sslcli.data.selection import drawn
from sslcli.errors import UserError, suggest
from sslcli.evaluation.base import QUERIES, Metric, Probe, compared
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.sparse_rows import SparseRows
from sslcli.evaluation.tfidf import TFIDF, Grams, Tfidf, reads_texts
from sslcli.run_dir.formatting import SHARE

_PAIR = ("text", "pair")
_TIE = 1e-6  # cosines of equal texts differ by rounding
_FEWEST = 2  # candidates
_FITTED = 100_000  # training samples that TF-IDF is fitted on
_CUTS = (1, 10)  # k of recall@k


class Places(NamedTuple):
    """Where each query finds its own candidate among N."""

    above: Tensor  # (N,) int64, how many others are more similar to it
    tied: Tensor  # (N,) int64, how many others are as similar

    def reciprocal_rank(self) -> Tensor:
        """Return (N,) float64, the mean of 1 / rank over the orders of the candidates that tie."""
        numbers = torch.arange(len(self.above) + 1, dtype=torch.float64)
        harmonic = torch.where(numbers > 0, 1 / numbers, 0).cumsum(0)  # H_n = 1 + 1/2 + ... + 1/n
        return (harmonic[self.above + self.tied + 1] - harmonic[self.above]) / (self.tied + 1)

    def recall(self, k: int) -> Tensor:
        """Return (N,) float64, the share of these orders in which the candidate is among the first ``k``."""
        return ((k - self.above).clamp(min=0) / (self.tied + 1)).clamp(max=1).double()


def places(one: Tensor, two: Tensor, *, chunk: int = 1024) -> tuple[Places, Places]:
    """Return where each row of ``one`` finds that of ``two`` with its number by cosine similarity, and the reverse.

    Similarities that differ by less than 1e-6 are ties, so that features that say nothing have the scores of chance.

    Args:
        one: (N, D) features.
        two: (N, D) features.
        chunk: rows at a time; memory is chunk x N.
    """
    one, two = (F.normalize(rows.float(), dim=1) for rows in (one, two))
    return _places(lambda part: one[part] @ two.T, (one * two).sum(1), chunk)


def sparse_places(one: SparseRows, two: SparseRows, *, chunk: int = 64) -> tuple[Places, Places]:
    """Return the same of rows of length 1, or 0, such as those of TF-IDF; ``chunk`` rows at a time are dense."""

    def dense(rows: SparseRows, part: slice) -> Tensor:
        return rows.take(torch.arange(len(rows))[part]).matrix().to_dense()

    parts = [slice(start, start + chunk) for start in range(0, len(one), chunk)]
    own = torch.cat([(dense(one, part) * dense(two, part)).sum(1) for part in parts])
    candidates = two.matrix()
    return _places(lambda part: (candidates @ dense(one, part).T).T, own, chunk)


def _places(similarities: Callable[[slice], Tensor], own: Tensor, chunk: int) -> tuple[Places, Places]:
    """Count from the similarities (chunk, N) of some rows with all columns; ``own`` (N,) are those of the pairs."""
    counts = torch.zeros(4, len(own), dtype=torch.int64)  # above and tied, of rows and of columns
    for start in range(0, len(own), chunk):
        part = slice(start, start + chunk)
        similarity = similarities(part)
        for row, dim, mine in ((0, 1, own[part, None]), (2, 0, own)):
            above, from_below = similarity > mine + _TIE, similarity >= mine - _TIE
            where = part if dim == 1 else slice(None)
            counts[row, where] += above.sum(dim)
            counts[row + 1, where] += (from_below & ~above).sum(dim)
    counts[1::2] -= 1  # the candidate itself
    return Places(counts[0], counts[1].clamp(min=0)), Places(counts[2], counts[3].clamp(min=0))


class Retrieval(Probe):
    """MRR and recall@1 and @10 of one column by the other, by the cosine similarity of features, in both directions.

    The candidates of a query are the other column of all held-out samples that are read. Samples in which one of the
    two is empty are left out and counted. Candidates that tie count by the mean over their orders.

    Args:
        columns: the two columns; null takes those of the run's views where there are two, else text and pair.
        max_samples: largest number of held-out samples, which are queries and candidates; null takes all.
    """

    def __init__(self, *, columns: list[str] | None = None, max_samples: Count | None = 10_000) -> None:
        if columns is not None and len(set(columns)) != 2:
            raise ValueError(f"columns={columns} must be two different columns, such as [text,pair]")
        if max_samples is not None and max_samples < _FEWEST:
            raise ValueError(f"max_samples must be at least {_FEWEST}")
        self.columns, self.max_samples = columns, max_samples

    def cheap(self) -> Probe:
        """Return the probe on 1,000 samples."""
        return Retrieval(columns=self.columns, max_samples=min(self.max_samples or QUERIES, QUERIES))

    def __call__(self, context: ProbeContext) -> dict[str, Metric]:
        columns = self._columns(context)
        if columns is None:
            context.leave_out("retrieval: these data have no pairs, which are two columns such as text and pair")
            return {}
        dataset = context.queried
        index = drawn(len(dataset), len(dataset) if self.max_samples is None else self.max_samples)
        full = _not_empty(context, dataset, index, columns)
        kept, count = index[full], int(full.sum())
        if count < _FEWEST:
            context.leave_out(f"retrieval: {count} pairs are too few, it needs {_FEWEST}")
            return {}
        found = {name: places(*rows) for name, rows in _features(context, dataset, kept, columns).items()}
        told = f"; {len(index) - count:,} without one of both left out" if count < len(index) else ""
        if reads_texts(context) and all(context.dataset.spec[name].kind == "tokens" for name in columns):
            found[TFIDF], fitted = _tfidf(context, dataset, kept, columns)
            told += f"; tfidf: 1-2 grams of tokens, fitted on both columns of {fitted:,} train samples"
        return _metrics(context, found, columns, count, told)

    def _columns(self, context: ProbeContext) -> tuple[str, str] | None:
        """Return the two columns; None if there are none.

        Raises:
            UserError: a column is not in these data, or the encoder cannot read it.
        """
        spec = context.dataset.spec
        own = tuple(dict.fromkeys(context.views.fields))
        if self.columns is None:
            one, two = own if len(own) == 2 else _PAIR
            if one not in spec or two not in spec:
                return None
        else:
            one, two = self.columns
        for name in (one, two):
            if name not in spec:
                raise UserError(f"probe.columns: the dataset has no column '{name}'. {suggest(name, spec)}")
            if not context.reads(name):
                raise UserError(f"probe.columns: the run's encoder does not read the column '{name}'.")
        return one, two


def _not_empty(context: ProbeContext, dataset: Dataset, index: Tensor, columns: Sequence[str]) -> Tensor:
    """Return (N,) bool, True for the samples at ``index`` that have a word in each of the columns of tokens."""
    texts = [name for name in columns if dataset.spec[name].kind == "tokens"]
    parts = [
        torch.stack([dataset.spec[name].words(piece[name]).any(1) for name in texts]).all(0).cpu()
        for piece in context.pieces(dataset, index)
        if texts
    ]
    return torch.cat(parts) if parts else torch.ones(len(index), dtype=torch.bool)


def _features(
    context: ProbeContext, dataset: Dataset, index: Tensor, columns: tuple[str, str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the features of both columns by representation."""
    one, two = columns
    return {
        name: (context.features(name, dataset, index, one), context.features(name, dataset, index, two))
        for name in context.encoders
    }


def _tfidf(
    context: ProbeContext, dataset: Dataset, index: Tensor, columns: tuple[str, str]
) -> tuple[tuple[Places, Places], int]:
    """Return the places by TF-IDF, and the number of training samples that it is fitted on."""
    train = drawn(len(context.dataset), _FITTED)
    spec = context.dataset.spec

    def grams(source: Dataset, chosen: Tensor, names: Sequence[str]) -> Grams:
        pieces = context.pieces(source, chosen)
        return Grams.of((piece[name].cpu().numpy() for piece in pieces for name in names), spec[names[0]])

    fitted = Tfidf(grams(context.dataset, train, columns))
    one, two = (fitted.rows(grams(dataset, index, [name])) for name in columns)
    return sparse_places(one, two), len(train)


def _metrics(
    context: ProbeContext,
    found: Mapping[str, tuple[Places, Places]],
    columns: tuple[str, str],
    count: int,
    told: str,
) -> dict[str, Metric]:
    one, two = columns
    chance = float(Places(torch.zeros(count, dtype=torch.int64), torch.full((count,), count - 1)).reciprocal_rank()[0])
    among = f"by cosine among {count:,} {context.split} samples, ties by the mean over their orders{told}"

    def of(scores: Mapping[str, Tensor], words: str, unit: str, headline: bool = False) -> Metric:
        return compared(context, scores, words, unit=unit, higher_is_better=True, headline=headline)

    both = {name: (there.reciprocal_rank() + back.reciprocal_rank()) / 2 for name, (there, back) in found.items()}
    words = f"mean reciprocal rank of the other column, {one} to {two} and back, {among}; chance {chance:.2g}"
    metrics = {"mrr": of(both, words, "", headline=True)}
    for side, (source, target) in enumerate(((one, two), (two, one))):
        name, way = f"{source}_to_{target}", f"of {target} by {source}"
        each = {title: pair[side] for title, pair in found.items()}
        scores = {title: rank.reciprocal_rank() for title, rank in each.items()}
        metrics[f"mrr_{name}"] = of(scores, f"mean reciprocal rank {way}, {among}", "")
        for k in _CUTS:
            scores = {title: rank.recall(k) for title, rank in each.items()}
            metrics[f"recall_at_{k}_{name}"] = of(scores, f"share {way} among the first {k}, {among}", SHARE)
    return metrics
