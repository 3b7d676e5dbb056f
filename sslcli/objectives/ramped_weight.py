"""The weight of a joint objective's part: a number, or a ramp over training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sslcli.run_dir.formatting import is_number

_KEYS = ("from", "to", "start", "end")


class Weight:
    """The weight as a function of the share of training done.

    Args:
        name: name of the part, for messages.
        given: a number, or ``{from, to, start, end}``: ``from`` until the share ``start`` of training is done,
            ``to`` after the share ``end``, linear between them; ``start`` and ``end`` default to 0 and 1.

    Raises:
        ValueError: ``given`` is neither of the two.
    """

    def __init__(self, name: str, given: Any) -> None:
        ramp = given if isinstance(given, Mapping) else {"from": given, "to": given}
        if not {"from", "to"} <= set(ramp) <= set(_KEYS) or not all(map(_is_finite, ramp.values())):
            raise ValueError(
                f"weights.{name}={given!r} is neither a number nor a ramp like {{from: 1, to: 0, start: 0, end: 1}}"
            )
        self.before, self.after = float(ramp["from"]), float(ramp["to"])
        self.start, self.end = float(ramp.get("start", 0)), float(ramp.get("end", 1))
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"weights.{name}: start={self.start} and end={self.end} need 0 <= start < end <= 1")
        if min(self.before, self.after) < 0:
            raise ValueError(f"weights.{name} must not be negative")
        self.moves = self.before != self.after

    def value(self, progress: float) -> float:
        """Return the weight when the share ``progress`` of training is done."""
        share = min(1.0, max(0.0, (progress - self.start) / (self.end - self.start)))
        return self.before + share * (self.after - self.before)


def _is_finite(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)
