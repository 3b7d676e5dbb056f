"""The exception for mistakes of the user, and the spelling hint for its message."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(Exception):
    """A mistake that the user can correct: printed as one or two lines without a traceback, exit code 2.

    The message names the config path or the file, and what to do.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(escaped(str(message)))


def escaped(text: str) -> str:
    """Return a text with its control characters escaped, so that a name in it cannot drive a terminal.

    Tabs and line breaks stay. Characters that change the direction of writing, and halves of characters, are escaped.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(name: str) -> str:
    """Return a name from outside with all control characters escaped, tabs and line breaks too."""
    return escaped(name.replace("\t", "\\t").replace("\n", "\\n"))


def described(error: BaseException) -> str:
    """Return the class of an error and the first line of its message, at most 160 characters."""
    lines = str(error).strip().splitlines()
    return (f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)[:160]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was full: Python's own error, and those of the allocators of torch and NumPy."""
    words = (
        "can't allocate memory",
        "not enough memory",
        "Unable to allocate",
        "Cannot allocate memory",
        "tensor size",
    )
    name = type(error).__name__
    return isinstance(error, MemoryError) or name == "OutOfMemoryError" or any(word in str(error) for word in words)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the most similar known word, if any, then all: ``Did you mean 'x'? Known: ...``."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}Known: {', '.join(known)}." if known else "There are none."
