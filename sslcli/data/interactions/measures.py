"""The times and the ratings of interactions, as numbers."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

import numpy as np

from sslcli.data.interactions.coded import Coded
from sslcli.errors import UserError, one_line

MISSING = -1  # the rank of no time


def ranks_of_times(column: Coded) -> np.ndarray:
    """Return which of the different times each row has, in ascending order from 0, (N,) int64; -1 for none.

    Times are numbers of any unit, or dates in ISO 8601, those without a time zone in UTC. Nothing but their order is
    used.

    Raises:
        UserError: one is neither, or there are none.
    """
    if not column.values:
        raise UserError(f"dataset.time: the column '{column.name}' has no value. dataset.time=none reads no times.")
    numbers = [_number(value) for value in column.values]
    if None in numbers:
        dates = [_date(value) for value in column.values]
        if None in dates:
            k = (numbers if any(n is not None for n in numbers) else dates).index(None)
            raise UserError(
                f"dataset.time: {column.where(k)} has {_shown(column.values[k])} in the column '{column.name}', and "
                "times are numbers, such as seconds, or dates, such as 2026-03-21T12:00. dataset.time=none reads none."
            )
        numbers = dates
    rank = {number: i for i, number in enumerate(sorted({*numbers}))}
    return column.taken(np.array([rank[number] for number in numbers], np.int64), MISSING)


def ratings(column: Coded) -> np.ndarray:
    """Return the rating of each row, (N,) float64, NaN for none.

    Raises:
        UserError: one is no number.
    """
    numbers = [_number(value) for value in column.values]
    if None in numbers:
        k = numbers.index(None)
        raise UserError(
            f"dataset.rating: {column.where(k)} has {_shown(column.values[k])} in the column '{column.name}', and "
            "dataset.min_rating compares numbers. Correct it, or name another column."
        )
    return column.taken(np.array(numbers, np.float64), math.nan)


def _number(value: Any) -> int | float | None:
    """Return a number as exactly as it is written, None for a text that is none, or for an infinite one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        return int(value) if isinstance(value, str) else _finite(float(value))
    except (TypeError, ValueError):
        pass
    try:
        return _finite(float(value))
    except (TypeError, ValueError):
        return None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _date(value: Any) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        date = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None


def _shown(value: Any) -> str:
    return f"'{one_line(str(value))[:40]}'"
