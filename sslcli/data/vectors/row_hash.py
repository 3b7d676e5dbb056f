"""A hash of each row's content: the same in any order of rows or columns, and for copies of a row."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from sslcli.data.vectors.column import Column
from sslcli.randomness import fold, mix


def hash_rows(columns: Sequence[Column], are_numbers: Sequence[bool]) -> np.ndarray:
    """Return (N,) uint64, a hash of each row's content: the same in any order of rows or columns."""
    total = np.zeros(len(columns[0].values), np.uint64)
    for column, is_number in zip(columns, are_numbers):
        if is_number:
            values = column.numbers() + 0.0  # of -0.0 the bits are others
            values[np.isnan(values)] = np.nan
            words = values.view(np.uint64)
        else:
            words = np.array(
                [0 if text is None else zlib.crc32(text.encode()) + 1 for text in column.texts()], np.uint64
            )
        total += mix(mix(words) ^ np.uint64(fold(column.name)))
    return mix(total)


def sample_rows(hashes: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` of the positions ``rows``, drawn by the rows' content, whatever their order is."""
    order = rows[np.argsort(hashes[rows], kind="stable")]
    _, first, copies = np.unique(hashes[order], return_index=True, return_counts=True)
    copy = np.arange(len(order)) - np.repeat(first, copies)  # 0 for the first of equal rows, 1 for the next
    drawn = mix(hashes[order] ^ mix(copy.astype(np.uint64)))
    return order[np.argsort(drawn, kind="stable")[:count]]
