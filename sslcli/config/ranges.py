"""Ranges of numbers in a config, declared in the annotation of a key: ``width: Count``.

Every number must be finite and every whole number have at most 64 bits, also without a range.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union

from sslcli.errors import UserError


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``, with both ends unless ``open_low``."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.open_low else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        if self.open_low:
            return f"above {self.low:g}" + ("" if math.isinf(self.high) else f", at most {self.high:g}")
        return f"at least {self.low:g}" if math.isinf(self.high) else f"from {self.low:g} to {self.high:g}"


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Depth = Annotated[int, Range(1, 1000)]  # layers: each is an object
HeadDepth = Annotated[int, Range(0, 1000)]  # layers of a head that may be none
Side = Annotated[int, Range(2, 65536)]  # of a picture, in pixels
Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
TemperatureValue = Annotated[float, Range(1e-4, 1e4)]  # beyond, exponentials of float32 overflow


def check_number(where: str, value: Any, hint: Any) -> None:
    """Check the numbers in a value whose type is that of ``hint`` against the ranges there.

    Args:
        where: the config path.
        value: a plain value.
        hint: the annotation of the key, with its extras.

    Raises:
        UserError: a number is out of range; the message says which are allowed.
    """
    for number, limits in _numbers(value, hint):
        if isinstance(number, float) and not math.isfinite(number):
            raise UserError(f"{where}={value} must be finite.")
        if isinstance(number, int) and not -(2**63) <= number < 2**63:
            raise UserError(f"{where}={str(value)[:40]}... is too large: a whole number has at most 64 bits.")
        if limits is not None and number not in limits:
            raise UserError(f"{where}={value} must be {limits}.")


def _numbers(value: Any, hint: Any, limits: Range | None = None) -> typing.Iterator[tuple[float, Range | None]]:
    """Yield each number in ``value`` with the range that its annotation gives."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        limits = next((extra for extra in arguments[1:] if isinstance(extra, Range)), limits)
        yield from _numbers(value, arguments[0], limits)
    elif isinstance(value, bool):
        return
    elif isinstance(value, (int, float)):
        options = arguments if origin in (Union, types.UnionType) else ()
        inner = next((option for option in options if typing.get_origin(option) is Annotated), None)
        if inner is not None:
            yield from _numbers(value, inner)
        else:
            yield value, limits
    elif isinstance(value, (list, tuple)):
        same = [arguments[0]] * len(value) if arguments and len(arguments) != len(value) else arguments
        for i, item in enumerate(value):
            yield from _numbers(item, same[i] if i < len(same) else Any)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item, Any)


def largest(where: str, values: Mapping[str, Any]) -> str:
    """Return a hint that names the two largest whole numbers from 1,000 on, to print where memory is full, or ''."""
    numbers = {k: v for k, v in values.items() if isinstance(v, int) and not isinstance(v, bool) and v >= 1000}
    names = sorted(numbers, key=lambda key: -numbers[key])[:2]
    return f" The largest numbers are {' and '.join(f'{where}{k}={numbers[k]}' for k in names)}." if names else ""
