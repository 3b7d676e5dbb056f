"""Formats names and errors for people, in the same way in the terminal, in reports and in messages."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from sslcli.errors import one_line

COLUMNS = 100  # of a terminal, which lines should fit
SHARE = "share"  # the unit of metrics that are fractions


def is_number(value: Any) -> bool:
    """Whether a value of a config or of a JSON file is a number; a bool does not count."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def few(names: Sequence[str]) -> str:
    """Return up to four names in brackets, to print after their number; an empty string for more names."""
    return f" ({', '.join(map(one_line, names))})" if 0 < len(names) <= 4 else ""


def first_line(error: object) -> str:
    """Return the first line of an error's message, at most 120 characters, or its class if there is no message."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:120]


def listed(words: Sequence[str], most: int, between: str = ", ") -> str:
    """Return the first ``most`` of some words, and dots if there are more."""
    return between.join([*words[:most], *["..."] * (len(words) > most)])


def wrapped(text: str, indent: int = 2) -> list[str]:
    """Return a text as lines that fit a terminal; all but the first are indented."""
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, COLUMNS, subsequent_indent=" " * indent, **options) or [text]


def in_columns(*words: str) -> list[str]:
    """Return words with two spaces between them, as lines that fit a terminal; all but the first are indented."""
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]}  {word}"
        lines = [*lines[:-1], longer] if len(longer) <= COLUMNS else [*lines, f"  {word}"]
    return lines


def in_bytes(number: float) -> str:
    """Return a number of bytes with three digits and its unit: 12.3 MB."""
    unit, size = next((pair for pair in (("GB", 1e9), ("MB", 1e6)) if number >= pair[1]), ("kB", 1e3))
    return f"{number / size:.3g} {unit}" if number < 1000 * size else f"{number / size:,.0f} {unit}"


def in_time(seconds: float) -> str:
    """Return a time in its two largest units: 2 h 5 min."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min"
