"""The one exception that users see, and the spelling hint that goes into it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: printed as one or two lines without a traceback, exit code 2.

    The message names the place (a config path or a file) and the way out.
    """


def suggest(word: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known word, and all of them: ``Did you mean 'x'? Known: ...``."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}Known: {', '.join(known)}." if known else "There are none."
