"""A column of a table of interactions: its different values, and which of them each row has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Coded:
    """A column, in which most values occur often.

    Args:
        name: its name in the header.
        values: the different values, K of them: texts, numbers or dates.
        codes: (N,) int64, the place in ``values`` of each row's value, -1 for a missing one.
        place: says where the i-th row is, for messages.
    """

    name: str
    values: list[Any]
    codes: np.ndarray
    place: Callable[[int], str]

    @classmethod
    def of(cls, name: str, column: Iterable[Any], place: Callable[[int], str]) -> Coded:
        """Collect the values of a column, in which None is a missing one."""
        known: dict[Any, int] = {None: -1}
        codes = np.array([known.setdefault(value, len(known) - 1) for value in column], np.int64)
        return cls(name, [value for value in known if value is not None], codes, place)

    def where(self, k: int) -> str:
        """Return the place of the first row that has the k-th value."""
        return self.place(int(np.argmax(self.codes == k)))

    def taken(self, numbers: np.ndarray, missing: float) -> np.ndarray:
        """Return what ``numbers`` (K,) says of each row's value, (N,), and ``missing`` where there is none."""
        return np.append(numbers, np.array([missing], numbers.dtype))[self.codes]
