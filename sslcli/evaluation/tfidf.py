"""TF-IDF of the tokens of texts, the baseline that features of texts are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import Dataset
from sslcli.evaluation.context import ProbeContext
from sslcli.evaluation.sparse_rows import SparseRows
from sslcli.types import Field

MOST = 2**18  # grams
_LEAST = 2  # texts that have a gram
TFIDF = "tfidf"  # its name among the baselines
_DESCRIPTION = "tfidf: 1-2 grams of the tokens that two or more bank texts have, fitted on the bank"


@dataclass(frozen=True)
class Grams:
    """The grams of one or two tokens of some texts, as pairs of a row and a code, sorted, without duplicates."""

    rows: np.ndarray
    codes: np.ndarray
    counts: np.ndarray  # how often each occurs in its row
    num_rows: int

    @classmethod
    def of(cls, pieces: Iterator[np.ndarray], field: Field) -> Grams:
        """Count the grams in ids (B, T), piece by piece; padding and special ids belong to none."""
        special = [*field.special, *(() if field.pad is None else (field.pad,))]
        found, start = [], 0
        for ids in pieces:
            ids = ids.astype(np.int64)
            word = ~np.isin(ids, special)
            both = word[:, :-1] & word[:, 1:]
            codes = (ids, field.vocab * (1 + ids[:, :-1]) + ids[:, 1:])
            for which, code in zip((word, both), codes):
                row = np.nonzero(which)[0]
                found.append(np.stack([row + start, code[which]]))
            start += len(ids)
        rows, codes = np.concatenate([np.zeros((2, 0), np.int64), *found], 1)
        order = np.lexsort((codes, rows))
        rows, codes = rows[order], codes[order]
        first = np.ones(len(rows), bool)
        first[1:] = (rows[1:] != rows[:-1]) | (codes[1:] != codes[:-1])
        counts = np.diff(np.append(np.flatnonzero(first), len(rows)))
        return cls(rows[first], codes[first], counts, start)


class Tfidf:
    """TF-IDF with idf = ln((1 + N) / (1 + df)) + 1 and rows of length 1, as scikit-learn's ``TfidfVectorizer``.

    Args:
        grams: the texts that it is fitted on; it knows their grams that two or more texts have, at most the 262,144 in
            the most texts.
    """

    def __init__(self, grams: Grams) -> None:
        codes, frequency = np.unique(grams.codes, return_counts=True)
        kept = np.flatnonzero(frequency >= min(_LEAST, frequency.max(initial=1)))
        if len(kept) > MOST:
            kept = np.sort(kept[np.argsort(-frequency[kept], kind="stable")[:MOST]])
        self.codes = codes[kept]
        self.idf = np.log((1 + grams.num_rows) / (1 + frequency[kept])) + 1

    def rows(self, grams: Grams) -> SparseRows:
        """Return the rows of texts; a text without a known gram is 0."""
        column = np.searchsorted(self.codes, grams.codes)
        column = np.minimum(column, max(len(self.codes) - 1, 0))
        known = self.codes[column] == grams.codes if len(self.codes) else np.zeros(len(column), bool)
        rows, columns = grams.rows[known], column[known]
        values = grams.counts[known] * self.idf[columns]
        norms = np.sqrt(np.bincount(rows, values**2, grams.num_rows))
        starts = np.append(0, np.bincount(rows, minlength=grams.num_rows).cumsum())
        return SparseRows(
            torch.from_numpy(starts),
            torch.from_numpy(columns),
            torch.from_numpy((values / norms[rows]).astype(np.float32)),
            max(len(self.codes), 1),
        )


def reads_texts(context: ProbeContext) -> bool:
    """Whether TF-IDF is a baseline: the encoder reads tokens, and baselines are wanted."""
    return context.raw_input and context.dataset.spec[context.views.field].kind == "tokens"


def in_protocol(context: ProbeContext, how: str = "") -> str:
    """Return what a protocol says of TF-IDF, and how it is used; "" where it is no baseline."""
    return f"; {_DESCRIPTION}{how}" if reads_texts(context) else ""


def tfidf(context: ProbeContext, bank: Tensor, held_out: Dataset, queries: Tensor) -> tuple[SparseRows, SparseRows]:
    """Return the rows of bank and queries in the column that the encoder reads, fitted on the bank."""
    own = _grams(context, context.dataset, bank)
    fitted = Tfidf(own)
    return fitted.rows(own), fitted.rows(_grams(context, held_out, queries))


def _grams(context: ProbeContext, dataset: Dataset, index: Tensor) -> Grams:
    name = context.views.field
    pieces = (columns[name].cpu().numpy() for columns in context.pieces(dataset, index))
    return Grams.of(pieces, dataset.spec[name])
