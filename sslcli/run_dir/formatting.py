"""Numbers, names and errors as people read them, the same in a terminal, a report and a message."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

_SHARES = ("top1", "top5", "accuracy")


def is_share(name: str) -> bool:
    """Whether the metric called ``name`` is a share, which is read in per cent."""
    return any(word in name for word in _SHARES)


def number(name: str, value: float) -> str:
    """The metric's value: a share in per cent, anything else with four decimals."""
    return f"{100 * value:.2f} %" if is_share(name) else f"{value:.4f}"


def is_number(value: Any) -> bool:
    """Whether a value of a config or of a JSON file is a number; in Python a bool is one, too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def few(names: Sequence[str]) -> str:
    """The names in brackets behind their number, if they are few."""
    return f" ({', '.join(names)})" if 0 < len(names) <= 4 else ""


def first_line(error: object) -> str:
    """What an error says, short enough for a line; an error that says nothing goes by its kind."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:120]


def override(key: str, value: str) -> str:
    """``key=value`` for a shell and for Hydra's grammar, quoted where either would take it apart."""
    if re.fullmatch(r"[\w./-]+", value, re.ASCII):
        return f"{key}={value}"
    quoted = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)  # elsewhere \ is itself
    return shlex.quote(f'{key}="{quoted}"')
