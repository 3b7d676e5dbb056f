"""The representations that a probe compares: the input without any encoder, and the features of each encoder."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from sslcli.data.base import Dataset
from sslcli.evaluation.context import ProbeContext, numbers
from sslcli.evaluation.pca import principal_axes
from sslcli.evaluation.rows import gathered
from sslcli.evaluation.sparse_rows import AnyRows
from sslcli.evaluation.tfidf import TFIDF, reads_texts, tfidf
from sslcli.views.base import normalise

Rows = tuple[Tensor, Tensor]  # (bank, queries), (N, D) and (Q, D)
Compared = tuple[AnyRows, AnyRows]


def inputs(context: ProbeContext, bank: Tensor, held_out: Dataset, queries: Tensor) -> Iterator[tuple[str, Compared]]:
    """Yield the input and each encoder's features by name, one at a time, as each may fill much of the memory.

    The input is ``raw_input``; of texts, whose ids are no numbers, it is their TF-IDF, fitted on the bank.
    """
    raw_rows = raw(context, bank, held_out, queries)
    if raw_rows is not None:
        yield "raw_input", raw_rows
    del raw_rows
    if reads_texts(context):
        yield TFIDF, tfidf(context, bank, held_out, queries)
    for name in context.encoders:
        yield name, (context.features(name, context.dataset, bank), context.features(name, held_out, queries))


def raw(context: ProbeContext, bank: Tensor, held_out: Dataset, queries: Tensor) -> Rows | None:
    """Return the column that the encoder reads as rows of numbers; None for ids, whose distances mean nothing.

    Vectors are standardised, as the encoder gets them: their numbers have units of their own, and in cosines the column
    with the largest would be all that counts. Pixels have one unit, and stay as they are.
    """
    if not context.raw_input:
        return None
    name = context.views.field
    if context.dataset.spec[name].is_ids:
        return None
    return _rows(context, context.dataset, bank, name), _rows(context, held_out, queries, name)


def reduced(rows: Rows) -> Iterator[tuple[str, Rows]]:
    """Yield raw rows unchanged, then centred (in place), then on 64 principal components, fitted on the bank."""
    yield "raw_input", rows
    bank, queries = rows
    mean = bank.mean(0)
    bank -= mean
    queries -= mean
    yield "centred", rows
    _, axes = principal_axes(bank, 64)
    small = bank @ axes, queries @ axes
    del rows, bank, queries  # which may fill most of the memory, as may what comes next
    yield f"pca{axes.shape[1]}", small


def _rows(context: ProbeContext, dataset: Dataset, index: Tensor, name: str) -> Tensor:
    field = dataset.spec[name]

    def parts() -> Iterator[Tensor]:
        for columns in context.pieces(dataset, index):
            x = normalise(columns[name].float(), field) if field.kind == "vector" else columns[name]
            yield numbers(x, field).cpu()

    return gathered(parts(), len(index), "reading raw_input")
