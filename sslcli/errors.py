"""The exception for mistakes of the user, and the spelling hint for its message."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(Exception):
    """A mistake that the user can correct: printed as one or two lines without a traceback, exit code 2.

    The message names the config path or the file, and what to do.
    """

    exit_code = 2

    def __init__(self, message: object = "") -> None:
        super().__init__(escaped(str(message)))


class StartAgain(UserError):
    """Nothing is wrong with the command, which could not go on here and now: exit code 75."""

    exit_code = 75


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
        "Cannot allocate memory",
        "Storage size calculation overflowed",
        "failed to map segment",
    )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    kinds = (RuntimeError, OSError, ImportError)
    return isinstance(error, kinds) and any(word in str(error) for word in words)


# What the file system refuses: with a name that is too long, without permission, on a full or broken disk.
_REFUSALS = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "EIO", "ESTALE", "ENAMETOOLONG",
                 "ELOOP", "ENOTDIR", "EISDIR")
)  # fmt: skip


def for_user(error: Exception) -> Exception:
    """Return what the machine refuses, which is no bug, as a UserError; other errors as they are."""
    if is_out_of_memory(error) and not isinstance(error, UserError):
        return UserError(f"The memory of this machine is full ({described(error)}). Lower what is large.")
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return error
    name = os.fsdecode(error.filename)[:200] if isinstance(error.filename, (str, bytes)) else "a file"
    return UserError(f"{name}: {error.strerror}.")


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the most similar known word, if any, then all: ``Did you mean 'x'? Known: ...``."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}Known: {', '.join(known)}." if known else "There are none."
