"""The exception for mistakes of the user, and the spelling hint for its message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can correct: printed as one or two lines without a traceback, exit code 2.

    The message names the config path or the file, and what to do.
    """


def described(error: BaseException) -> str:
    """Return the class of an error and the first line of its message, at most 160 characters."""
    lines = str(error).strip().splitlines()
    return (f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)[:160]


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the most similar known word, if any, then all: ``Did you mean 'x'? Known: ...``."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}Known: {', '.join(known)}." if known else "There are none."
