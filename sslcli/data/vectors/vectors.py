"""``dataset=vectors``: the rows of a table as standardised vectors, fitted on the training part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sslcli.config.paths import expand
from sslcli.config.ranges import Count
from sslcli.data.base import Columns, Dataset, Notes
from sslcli.data.fingerprints import LIMIT, Digest, of_files
from sslcli.data.row_split import Parts, held_out_by_name, split_by_column, split_by_hash
from sslcli.data.split_names import TRAIN
from sslcli.data.vectors.column import Column
from sslcli.data.vectors.fitted_columns import (
    NAME,
    fit_columns,
    groups_of,
    missing_column,
    read_columns,
    to_vectors,
)
from sslcli.data.vectors.notes import cell_notes, column_notes
from sslcli.data.vectors.row_hash import hash_rows, sample_rows
from sslcli.data.vectors.table import Table, read_scikit, read_table
from sslcli.errors import UserError, one_line
from sslcli.run_dir.fitted import FACTS, Fitted
from sslcli.types import Field, Spec

COLUMN = "vector"
SAMPLE, GROUPS = (
    f"{COLUMN}.sample",
    f"{COLUMN}.groups",
)  # facts: training rows (M, D), and the column of each place (D,)
_LABEL = "label"
_MOST_ROWS, _MOST_NUMBERS = 4096, 2**22  # of the sample


def vectors(
    *,
    path: str | None = None,
    name: Literal["digits", "wine", "breast_cancer"] | None = None,
    label: str | None = None,
    split: str | None = None,
    ignore: list[str] | None = None,
    categories: list[str] | None = None,
    max_categories: Count = 100,
    missing: list[str] | None = None,
    holdout: float | None = None,
) -> Dataset:
    """Make a dataset of the rows of a table, in the order of the file.

    Args:
        path: a CSV or TSV file with a header, a Parquet file, an array (N, D) of NumPy, or several in an .npz file.
        name: a set of scikit-learn instead.
        label: the column of classes; None uses ``label`` if there is such a column.
        split: the column that names each row's part; None divides by a hash of the row's content.
        ignore: columns that are not read.
        categories: columns of numbers that are names of categories.
        max_categories: how many categories of a column have a place of their own.
        missing: further words for a missing value.
        holdout: a fraction of the training rows to hold out, instead of the rows that ``split`` names.
    """
    if (path is None) == (name is None):
        raise UserError("dataset.path: give a table, dataset.path=FILE, or dataset.name=digits, wine or breast_cancer.")
    place = None if path is None else expand(path)
    ignored, named = ignore or (), categories or ()
    table = read_scikit(str(name)) if place is None else read_table(place, missing or (), ignored)
    for key, names in (("ignore", ignored), ("categories", named)):
        for each in names:
            table.column(each, f"dataset.{key}")
    if label is None and _LABEL in table.columns and _LABEL not in ignored:
        label = _LABEL
    return Vectors(table, place, label, split, ignored, named, max_categories, holdout)


class Vectors(Dataset):
    """A table that is read and divided, whose columns are not fitted yet; ``vectors`` describes the arguments."""

    in_memory = True

    def __init__(
        self,
        table: Table,
        path: Path | None,
        label: str | None,
        split: str | None,
        ignore: Sequence[str],
        categories: Sequence[str],
        max_categories: int,
        holdout: float | None,
    ) -> None:
        self.spec, self.table, self.path, self.max_categories = Spec(), table, path, max_categories
        labels, named = (
            None if name is None else table.column(name, f"dataset.{key}")
            for key, name in (("label", label), ("split", split))
        )
        self.all_labels, self.classes = _classes(labels, len(table))
        self.own = [column for column in table.columns.values() if column.name not in (label, split, *ignore)]
        if not self.own:
            raise UserError(f"dataset.path: {table.source} has no column beside the label, the split and the ignored.")
        self.are_numbers = [column.name not in categories and column.is_number() for column in self.own]
        self.hashes = hash_rows(self.own, self.are_numbers)
        self.parts, said = self._divided(named, holdout)
        if not len(self.parts[0]):
            raise UserError(f"dataset.path: no row of {table.source} is left for training, of {len(table):,}.")
        self.notes = said

    def __len__(self) -> int:
        return len(self.parts[0])

    def fingerprint(self, limit: int = LIMIT) -> str:
        if self.path is not None:
            return f"{len(self.table)} rows, {of_files([self.path], limit)}"
        digest = Digest()
        digest.tensors({"rows": torch.from_numpy(self.hashes.view(np.int64)), "labels": self.all_labels})
        return f"{self.table.source} of scikit-learn, {digest}"

    def fit(self, files: Fitted) -> Dataset:
        """Return the rows as vectors, by what the run has fitted, or by what is fitted now on the training rows."""
        train, held_out = self.parts
        fitted = read_columns(files.file(NAME, lambda: self._fitted(train)))
        rows, counts = to_vectors(fitted, self._column, len(self.table))
        width = rows.shape[1]
        if not width:
            raise UserError(f"dataset.path: every column of {self.table.source} is constant or empty.")
        facts = files.tensors(
            FACTS,
            lambda: {
                SAMPLE: torch.from_numpy(rows[sample_rows(self.hashes, train, _size(len(train), width))]),
                GROUPS: torch.from_numpy(groups_of(fitted)),
            },
        )
        x = torch.from_numpy(rows)
        spec = Spec({COLUMN: Field("vector", (width,), torch.float32)}, facts=facts)
        labelled = bool((self.all_labels >= 0).any())
        made = [
            Columns(spec, {COLUMN: x[part]}, self.all_labels[part] if labelled else None, self.classes)
            for part in (torch.from_numpy(train), torch.from_numpy(held_out))
        ]
        made[0].held_out = made[1] if len(held_out) else None
        made[0].notes = (*column_notes(self.table, self.own, fitted, width), *cell_notes(counts), *self.notes)
        return made[0]

    def _fitted(self, rows: np.ndarray) -> bytes:
        return fit_columns(self.own, self.are_numbers, rows, self.max_categories, self.table.missing)

    def _divided(self, split: Column | None, holdout: float | None) -> tuple[Parts, Notes]:
        labelled = (self.all_labels >= 0).numpy()
        if split is None:
            return split_by_hash(self.hashes, holdout, labelled)
        parts, said = split_by_column(split.texts().tolist(), split.name)
        if holdout is not None:
            (kept, held_out), more = split_by_hash(self.hashes[parts[TRAIN]], holdout, labelled[parts[TRAIN]])
            return (parts[TRAIN][kept], parts[TRAIN][held_out]), (*said, ("split", f"of train, {more[0][1]}"))
        return (parts[TRAIN], parts[held_out_by_name(parts, labelled)]), said

    def _column(self, name: str) -> Column:
        found = next((column for column in self.own if column.name == name), None)
        if found is None:
            raise missing_column(name, [column.name for column in self.own], f"dataset.path: {self.table.source}")
        return found


def _classes(column: Column | None, count: int) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return the labels (N,), -1 for none, and the names of the classes: numbers in their order, else by name."""
    if column is None:
        return torch.full((count,), -1), ()
    texts = column.texts()
    names = sorted({text for text in texts if text is not None}, key=_by_number)
    known = sum(text is not None for text in texts)
    if len(names) > max(2, known / 2):
        raise UserError(
            f"dataset.label: the column '{column.name}' has {len(names):,} values in {known:,} rows, and labels are "
            "classes. Name another column, or leave this one out by dataset.ignore."
        )
    number = {name: i for i, name in enumerate(names)}
    return torch.tensor([-1 if text is None else number[text] for text in texts]), tuple(map(one_line, names))


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return float("inf"), text


def _size(count: int, width: int) -> int:
    """Return how many training rows are kept as a sample of their values."""
    return min(count, _MOST_ROWS, max(_MOST_NUMBERS // width, 256))
