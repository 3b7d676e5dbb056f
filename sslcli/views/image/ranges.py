"""The types of a recipe's fields, with the values that each type allows."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Allowed:
    """The allowed values of a type, and the error message for other values."""

    values: Callable[[Any], bool]
    message: str


Probability = Annotated[float, Allowed(lambda p: 0 <= p <= 1, "is not a probability; give a number from 0 to 1")]
Amount = Annotated[float, Allowed(lambda a: a >= 0, "must not be negative")]
Turns = Annotated[float, Allowed(lambda t: 0 <= t <= 0.5, "must be from 0 to 0.5 turns")]

Pair = tuple[float, float]  # from and to
Shares = Annotated[Pair, Allowed(lambda p: 0 < p[0] <= p[1] <= 1, "must be two shares with 0 < from <= to <= 1")]
Ratios = Annotated[Pair, Allowed(lambda p: 0 < p[0] <= p[1], "must be two positive numbers, the smaller first")]
Sigmas = Annotated[Pair, Allowed(lambda p: 0 <= p[0] <= p[1], "must be two numbers, the smaller first")]


def check_numbers(record: Any) -> None:
    """Check the fields of a dataclass whose types are defined in this module.

    Raises:
        ValueError: a value is not allowed; the message gives the name of the field.
    """
    for name, hint in typing.get_type_hints(type(record), include_extras=True).items():
        value = getattr(record, name)
        for allowed in getattr(hint, "__metadata__", ()):
            if not allowed.values(value):
                shown = value if isinstance(value, (int, float)) else list(value)
                raise ValueError(f"{name}={shown} {allowed.message}")
