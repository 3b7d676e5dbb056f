"""A column of a table as it is in its file: numbers, or texts that may be numbers or names of categories."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sslcli.errors import UserError, one_line

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")  # in small letters: what stands for no value
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: its name in the header.
        values: (N,) numbers, NaN for a missing one, or texts without spaces around them, None for a missing one.
        place: says where the i-th row is, for messages.
        kind: what a typed header of RecBole's says: ``token``, ``token_seq`` (categories with blanks between them) or
            ``float``; "" where the values say it.
    """

    name: str
    values: np.ndarray
    place: Callable[[int], str]
    kind: str = ""

    @property
    def has_texts(self) -> bool:
        """Whether the values are texts."""
        return self.values.dtype == object

    def is_number(self) -> bool:
        """Whether all values are numbers.

        Raises:
            UserError: at least half of the different values are, but not all, or they have decimal commas.
        """
        if self.kind.startswith("token"):
            return False
        if not self.has_texts:
            return True
        different = {text for text in self.values if text is not None}
        others = {text for text in different if _number(text) is None}
        if not others:
            return True
        odd = next(text for text in self.values if text in others)  # the first in the file; a set has no order
        if _DECIMAL_COMMA.fullmatch(odd) and all(_number(text.replace(",", ".")) is not None for text in others):
            raise UserError(
                f"dataset.path: {self._where(odd)} has '{odd}' in the column '{self.name}'. Write decimal points; "
                f"for names of categories set dataset.categories=[{self.name}]"
            )
        if 2 * len(others) <= len(different):
            raise UserError(
                f"dataset.path: {self._where(odd)} has '{one_line(odd)[:40]}' in the column '{self.name}', whose other "
                f"values are numbers. Correct it; if it means no value, set dataset.missing=['{one_line(odd)[:40]}'], "
                f"for categories dataset.categories=[{self.name}]"
            )
        return False

    def numbers(self) -> np.ndarray:
        """Return the values as float64, NaN for a missing one; nothing is to be written into them.

        Raises:
            UserError: one is no number.
        """
        return self._numbers

    @cached_property
    def _numbers(self) -> np.ndarray:
        if not self.has_texts:
            return self.values.astype(np.float64)
        found = np.full(len(self.values), np.nan)
        for i, text in enumerate(self.values):
            if text is not None:
                number = _number(text)
                if number is None:
                    raise UserError(
                        f"dataset.path: {self.place(i)} has '{one_line(text)[:40]}' in the column '{self.name}', which "
                        "has numbers in the data that the run was trained on."
                    )
                found[i] = number
        return found

    def texts(self) -> np.ndarray:
        """Return the values as texts, None for a missing one; whole numbers have no point."""
        return self.values if self.has_texts else as_texts(self.values)

    def _where(self, text: str) -> str:
        return self.place(next(i for i, value in enumerate(self.values) if value == text))


def as_texts(values: np.ndarray) -> np.ndarray:
    """Return numbers (N,) as texts, None for NaN; 3.0 is ``3``."""
    numbers, where = np.unique(values.astype(np.float64), return_inverse=True)
    texts = [None if np.isnan(n) else f"{int(n)}" if float(n).is_integer() else repr(float(n)) for n in numbers]
    return np.array([*texts, None], object)[:-1][where]


def cleaned(values: Sequence[Any], missing: Collection[str] = ()) -> np.ndarray:
    """Return texts (N,) without spaces around them, and None for each that means a missing value.

    Args:
        values: texts, or None.
        missing: words that mean a missing value, beside ``MISSING``.
    """
    found: dict[Any, str | None] = {}
    for value in set(values):
        text = "" if value is None else str(value).strip()
        found[value] = None if text.lower() in MISSING or text in missing else text
    array = np.empty(len(values), object)
    array[:] = [found[value] for value in values]
    return array


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
