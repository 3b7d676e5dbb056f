"""What is fitted on the columns of a table: means, deviations and categories; and rows of a table as vectors by it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sslcli.data.vectors.column import Column
from sslcli.errors import UserError, suggest

NAME = "columns.json"  # in the run's folder of fitted files
FAR = 1e6  # deviations from the mean; a number beyond counts as missing, as an infinite one does
NUMBER, CATEGORY, LEFT_OUT = "number", "category", "left out"


@dataclass(frozen=True)
class FittedColumn:
    """A column of the table that a run was trained on.

    Args:
        name: its name.
        kind: ``number``, ``category`` or ``left out``.
        mean: of a number, over the training rows that have one.
        std: the same, without Bessel's correction.
        indicator: whether a second number says where a value was missing.
        values: of a category, those that have a place of their own; all others share the place before them.
        several: whether a row has any number of categories, with blanks between them.
        why: of a column that is left out, the reason.
    """

    name: str
    kind: str
    mean: float = 0.0
    std: float = 1.0
    indicator: bool = False
    values: tuple[str, ...] = ()
    several: bool = False
    why: str = ""

    @property
    def width(self) -> int:
        """The numbers that the column has in the vector."""
        return {NUMBER: 1 + self.indicator, CATEGORY: 1 + len(self.values), LEFT_OUT: 0}[self.kind]

    def to_plain(self) -> dict[str, Any]:
        """Return what belongs to the kind, for the file."""
        of_category = ("values", "several") if self.several else ("values",)
        own = {NUMBER: ("mean", "std", "indicator"), CATEGORY: of_category, LEFT_OUT: ("why",)}[self.kind]
        return {"name": self.name, "kind": self.kind, **{key: getattr(self, key) for key in own}}


def fit_columns(
    columns: Sequence[Column], numbers: Sequence[bool], rows: np.ndarray, most: int, missing: Sequence[str] = ()
) -> bytes:
    """Return the file that says how columns become numbers, measured on the training rows.

    A column without two different values among them is left out, and so is one of texts without any text that occurs
    twice, as it names rows.

    Args:
        columns: the columns of the table.
        numbers: for each, whether it is one of numbers.
        rows: positions of the training rows.
        most: the most categories that a column keeps: the most frequent.
        missing: the user's own words for no value, with which rows are read later.
    """
    fitted = [_number(c, rows) if is_number else _category(c, rows, most) for c, is_number in zip(columns, numbers)]
    plain = {"missing": list(missing), "columns": [column.to_plain() for column in fitted]}
    return f"{json.dumps(plain, indent=1)}\n".encode()


def read_columns(content: bytes) -> list[FittedColumn]:
    """Read the columns from their file."""
    plain = json.loads(content)["columns"]
    return [FittedColumn(**{**each, "values": tuple(each.get("values", ()))}) for each in plain]


def missing_words(content: bytes) -> list[str]:
    """Read the user's own words for no value from that file."""
    return list(json.loads(content)["missing"])


def _number(column: Column, rows: np.ndarray) -> FittedColumn:
    found = column.numbers()[rows]
    values = found[np.isfinite(found)]
    if not len(values) or values.min() == values.max():
        return FittedColumn(column.name, LEFT_OUT, why="constant" if len(values) else "all missing")
    scale = float(np.abs(values).max())  # squares of the largest floats are infinite
    mean, std = float((values / scale).mean()) * scale, float((values / scale).std()) * scale
    if std == 0:
        return FittedColumn(column.name, LEFT_OUT, why="constant")
    return FittedColumn(column.name, NUMBER, mean, std, indicator=len(values) < len(found))


def _category(column: Column, rows: np.ndarray, most: int) -> FittedColumn:
    several = column.kind == "token_seq"
    found = [_categories(text, several) for text in column.texts()[rows]]
    counts = Counter(each for own in found for each in own)
    if len({frozenset(own) for own in found}) < 2:
        return FittedColumn(column.name, LEFT_OUT, why="constant" if counts else "all missing")
    if len(counts) > 1 and max(counts.values()) == 1:
        return FittedColumn(column.name, LEFT_OUT, why="no text twice")
    kept = sorted(counts, key=lambda text: (-counts[text], text))[:most]
    return FittedColumn(column.name, CATEGORY, values=tuple(sorted(kept)), several=several)


def _categories(text: str | None, several: bool) -> list[str]:
    """Return the different categories of a cell: none where it is missing."""
    if text is None:
        return []
    return list(dict.fromkeys(text.split())) if several else [text]


@dataclass
class Counts:
    """How many cells of some rows had no usable value, by the name of their column."""

    missing: Counter[str]
    infinite: Counter[str]
    unknown: Counter[str]


def to_vectors(
    fitted: Sequence[FittedColumn], column: Callable[[str], Column], count: int
) -> tuple[np.ndarray, Counts]:
    """Convert rows of a table to vectors (N, D) float32, and count what they lack.

    A number is standardised: (x - mean) / std. A missing one is 0, the mean. A category is one-hot, several are
    multi-hot; those that are unknown or missing are the first place.

    Args:
        fitted: the columns.
        column: returns a column of the table by its name.
        count: the number N of rows.

    Raises:
        UserError: a column is missing, or has a text where numbers are read.
    """
    vectors = np.zeros((count, sum(each.width for each in fitted)), np.float32)
    counts = Counts(Counter(), Counter(), Counter())
    start = 0
    for each in fitted:
        if each.kind == NUMBER:
            _fill_number(vectors[:, start : start + each.width], each, column(each.name), counts)
        elif each.kind == CATEGORY:
            _fill_category(vectors[:, start : start + each.width], each, column(each.name), counts)
        start += each.width
    return vectors, counts


def _fill_number(out: np.ndarray, fitted: FittedColumn, column: Column, counts: Counts) -> None:
    values = column.numbers()
    absent = np.isnan(values)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values - fitted.mean) / fitted.std
    beyond = ~absent & ~(np.abs(scaled) <= FAR)
    counts.missing[fitted.name] += int(absent.sum())
    counts.infinite[fitted.name] += int(beyond.sum())
    lacking = absent | beyond
    out[:, 0] = np.where(lacking, 0, scaled)
    if fitted.indicator:
        out[:, 1] = lacking


def _fill_category(out: np.ndarray, fitted: FittedColumn, column: Column, counts: Counts) -> None:
    places = {text: i for i, text in enumerate(fitted.values, 1)}
    found = [_categories(text, fitted.several) for text in column.texts()]
    lengths = np.array([len(own) for own in found], np.int64)
    known = np.array([places.get(each, 0) for own in found for each in own], np.int64)
    counts.missing[fitted.name] += int((lengths == 0).sum())
    counts.unknown[fitted.name] += int((known == 0).sum())
    out[lengths == 0, 0] = 1
    out[np.repeat(np.arange(len(out)), lengths), known] = 1


def groups_of(fitted: Sequence[FittedColumn]) -> np.ndarray:
    """Return (D,) int64, the number of the table's column that each place in the vector comes from."""
    widths = [each.width for each in fitted if each.width]
    return np.repeat(np.arange(len(widths)), widths)


def missing_column(name: str, known: Mapping[str, Any] | Sequence[str], source: str) -> UserError:
    """Return the error for a column that the run was trained with and that ``source`` does not have."""
    return UserError(f"{source} has no column '{name}', which the run was trained with. {suggest(name, list(known))}")
