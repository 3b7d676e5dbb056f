"""Rows of a table in Python, arrays, lists and dicts, as the vectors that an encoder was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.data.vectors.column import Column, cleaned
from sslcli.data.vectors.fitted_columns import (
    LEFT_OUT,
    NAME,
    FittedColumn,
    missing_column,
    missing_words,
    read_columns,
    to_vectors,
)
from sslcli.errors import UserError
from sslcli.run_dir.fitted import Fitted
from sslcli.types import Field


def read_rows(samples: Any, name: str, column: Field, fitted: Fitted) -> Tensor:
    """Convert rows of a table to vectors (B, D), as the run's dataset reads them from its file.

    A warning says how many cells have a category that the run does not know, or an infinite number.

    Args:
        samples: an array (B, K) or (K,), a list of rows or of dicts, or one dict. Rows have the K columns of the run's
            table in their order, without its label, split and ignored columns. Dicts may have more keys.
        name: the column's name.
        column: the column as the dataset has it.
        fitted: what was fitted on the run's data. Without ``columns.json``, rows are numbers as the dataset has them.

    Raises:
        UserError: a row has another length, a column is missing, or a text stands where the run reads numbers.
    """
    if NAME not in fitted.files:
        return torch.as_tensor(np.asarray(samples, np.float32))
    columns = read_columns(fitted.files[NAME])
    missing = missing_words(fitted.files[NAME])
    count, cells = _cells(samples, columns)
    if not count:
        raise UserError("no rows: the list is empty")
    found = {key: Column(key, _values(values, missing), lambda i: f"row {i}") for key, values in cells.items()}
    vectors, counts = to_vectors(columns, found.__getitem__, count)
    odd = counts.unknown.total() + counts.infinite.total()
    if odd:
        warnings.warn(f"{odd:,} of the cells have an unknown category or an infinite number", stacklevel=4)
    return torch.from_numpy(vectors)


def _cells(samples: Any, columns: Sequence[FittedColumn]) -> tuple[int, dict[str, Sequence[Any]]]:
    """Return the number of rows, and the values of each column by its name."""
    if isinstance(samples, Mapping):
        samples = [samples]
    if isinstance(samples, np.ndarray) and samples.dtype.names:
        return samples.size, {name: np.atleast_1d(samples[name]).tolist() for name in samples.dtype.names}
    if len(samples) and isinstance(samples[0], Mapping):
        for i, row in enumerate(samples):
            for each in columns:
                if each.kind != LEFT_OUT and each.name not in row:
                    raise missing_column(each.name, row, f"row {i}")
        return len(samples), {c.name: [row[c.name] for row in samples] for c in columns if c.kind != LEFT_OUT}
    rows = samples.tolist() if isinstance(samples, np.ndarray) else list(samples)
    if rows and not isinstance(rows[0], (list, tuple, np.ndarray)):
        rows = [rows]
    for i, row in enumerate(rows):
        if len(row) != len(columns):
            raise UserError(
                f"row {i} has {len(row)} values, and the run's table {len(columns)} columns: "
                f"{', '.join(each.name for each in columns[:3])}, ... Give them in this order, or dicts by name."
            )
    return len(rows), {each.name: [row[j] for row in rows] for j, each in enumerate(columns)}


def _values(values: Sequence[Any], missing: Sequence[str]) -> np.ndarray:
    if all(value is None or isinstance(value, (int, float, np.number, np.bool_)) for value in values):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return cleaned(values, missing)
