"""Features of users and of items: a table with one row an id, as vectors by the numbers that a run gives to its ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslcli.config.paths import expand
from sslcli.data.base import Notes
from sslcli.data.interactions.ids import as_ids
from sslcli.data.interactions.reading import usual_column
from sslcli.data.interactions.table import read_table as read_exactly
from sslcli.data.vectors.column import Column
from sslcli.data.vectors.fitted_columns import fit_columns, read_columns, to_vectors
from sslcli.data.vectors.notes import cell_notes, column_notes
from sslcli.data.vectors.table import Table, read_table
from sslcli.errors import UserError, one_line, suggest

SUFFIXES = (".csv", ".tsv", ".parquet", ".user", ".item")
MOST = 100  # categories of a column that have a place of their own: the most frequent


@dataclass(frozen=True)
class HowRead:
    """How columns of features are read, by the keys of ``dataset=vectors``.

    Args:
        ignore: columns that are not read.
        categories: columns of numbers that are names of categories.
        missing: further words for a missing value.
    """

    ignore: Sequence[str]
    categories: Sequence[str]
    missing: Sequence[str]


def features_of(how: HowRead, files: Mapping[str, tuple[str | None, str | None]]) -> list[Features]:
    """Return the features that a user gives.

    Args:
        how: how their columns are read.
        files: for ``user`` and ``item`` the file, None for none, and the column of ids in the interactions.

    Raises:
        UserError: there are none, and columns of theirs are named.
    """
    found = [Features(role, expand(path), column, how) for role, (path, column) in files.items() if path is not None]
    for key in ("ignore", "categories", "missing"):
        if getattr(how, key) and not found:
            raise UserError(
                f"dataset.{key} says how features are read, and there are none. Give dataset.user_features=FILE or "
                "dataset.item_features=FILE."
            )
    return found


def check_named(features: Sequence[Features]) -> None:
    """Raise UserError if a column that is named for features is in none of them; they have been read."""
    known = [name for each in features if each.table is not None for name in each.table.columns]
    for each in features:
        for key in ("ignore", "categories"):
            for name in getattr(each.how, key):
                if name not in known:
                    raise UserError(f"dataset.{key}: the features have no column '{name}'. {suggest(name, known)}")


class Features:
    """A file with a row for each user or each item, which is read once, by the process that fits its columns.

    Args:
        role: whose features these are, ``user`` or ``item``.
        path: a CSV, TSV or Parquet file, or RecBole's ``.user`` or ``.item``.
        id_column: the column of ids in the interactions, which may have the same name here; None: a usual one.
        how: how the columns are read.
    """

    def __init__(self, role: str, path: Path, id_column: str | None, how: HowRead) -> None:
        self.role, self.path, self.id_column, self.how = role, path, id_column, how
        self.key = f"dataset.{role}_features"  # the config path
        self.file = f"{role}_columns.json"  # the name of the fitted columns in the run's folder of fitted files
        self.notes: Notes = ((f"{role} features", f"those that the run has; {path.name} is not read again"),)
        self.table: Table | None = None  # as it was read
        self._own: list[Column] = []  # its columns by the numbers of the ids; of an id without a row all is missing
        self._are_numbers: list[bool] = []
        self._told = ""  # how many rows and ids have no counterpart

    def fit(self, ids: Sequence[str]) -> bytes:
        """Return the file that says how the columns become numbers, measured on the users or items of training.

        Args:
            ids: these users or items, N of them.

        Raises:
            UserError: the features cannot be read, have no column of ids or no other, or no row of one of these ids.
        """
        self._read(ids)
        return fit_columns(self._own, self._are_numbers, np.arange(len(ids)), MOST, self.how.missing)

    def vectors(self, ids: Sequence[str], content: bytes) -> Tensor:
        """Return the features (N, D) of these ids by the fitted columns, and say in ``notes`` what was read.

        Raises:
            UserError: no column tells users or items apart.
        """
        table = self._read(ids)
        fitted, by_name = read_columns(content), {column.name: column for column in self._own}
        rows, counts = to_vectors(fitted, by_name.__getitem__, len(ids))
        width = rows.shape[1]
        if not width:
            raise UserError(f"{self.key}: every column of {self.path} is constant or empty for these {self.role}s.")
        (_, columns), *left_out = column_notes(table, self._own, fitted, width)
        more = (*(f"left out: {text}" for _, text in left_out), *(text for _, text in cell_notes(counts)))
        self.notes = tuple((f"{self.role} features", text) for text in (self._told, columns, *more))
        return torch.from_numpy(rows)

    def _read(self, ids: Sequence[str]) -> Table:
        if self.table is None:
            if self.path.suffix.lower() not in SUFFIXES:
                raise UserError(f"{self.key}: {self.path} must end in {', '.join(SUFFIXES)}; tables are told by it.")
            with _told_as(self.key):
                table = read_table(self.path, self.how.missing, self.how.ignore)
                rows, self._told, name = self._rows(table, ids)
                own = [column for column in table.columns.values() if column.name not in (name, *self.how.ignore)]
                if not own:
                    raise UserError(f"{self.key}: {self.path} has no column beside '{name}' and the ignored.")
                self._are_numbers = [column.name not in self.how.categories and column.is_number() for column in own]
            self._own, self.table = [_taken(column, rows) for column in own], table
        return self.table

    def _rows(self, table: Table, ids: Sequence[str]) -> tuple[np.ndarray, str, str]:
        """Return the row (N,) of each id, -1 for none, in words what has none, and the name of the column of ids."""
        name = self.id_column if self.id_column in table.columns else usual_column(self.role, list(table.columns))
        if name is None:
            given = f"neither '{self.id_column}' nor" if self.id_column else "none of"
            raise UserError(
                f"{self.key}: {self.path} has no column of ids: {given} a usual name, such as {self.role}_id. Rename "
                f"it. {suggest(self.id_column or f'{self.role}_id', table.columns)}"
            )
        column = read_exactly(self.path).column(name)  # whole numbers of 64 bits are no floats
        texts, number = as_ids(column, self.key), {text: i for i, text in enumerate(ids)}
        numbers = np.array([*(number.get(text, -1) for text in texts), -2], np.int64)[column.codes]
        known = np.flatnonzero(numbers >= 0)
        if not len(known):
            example = f", such as '{one_line(texts[0])}'," if texts else ""
            raise UserError(
                f"{self.key}: no id in the column '{name}' of {self.path}{example} is a {self.role} of training, such "
                f"as '{one_line(ids[0])}'. Are ids written in two ways?"
            )
        rows = np.full(len(ids), -1)
        rows[numbers[known[::-1]]] = known[::-1]  # the last one that is written stays: the first row of an id
        have = int((rows >= 0).sum())
        counts = {
            f"{self.role}s have none, and all of theirs is missing": len(ids) - have,
            f"rows of no {self.role} in training": int((numbers == -1).sum()),
            "rows without an id": int((numbers == -2).sum()),
            "rows of an id that has one before": len(known) - have,
        }
        told = [f"{count:,} {words}" for words, count in counts.items() if count]
        return rows, "; ".join([f"{have:,} {self.role}s have a row of {self.path.name}, by '{name}'", *told]), name


def _taken(column: Column, rows: np.ndarray) -> Column:
    """Return a column at some rows, missing where the row is -1."""
    missing = None if column.has_texts else np.nan
    values = column.values[rows] if column.has_texts else column.values[rows].astype(np.float64)
    values[rows < 0] = missing
    return Column(column.name, values, lambda i: column.place(int(rows[i])), column.kind)


@contextmanager
def _told_as(key: str) -> Iterator[None]:
    """Let errors of readers of tables, who know the data as ``dataset.path``, begin with the config path ``key``."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("dataset.path:", f"{key}:", 1)) from None
