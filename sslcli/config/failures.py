"""What is known of an exception that was raised while a config was composed, for the rules that explain it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sslcli.config.given import Given


@dataclass(frozen=True)
class Failure:
    """An exception with its causes, all their messages in one text, and the command that led to it."""

    causes: list[BaseException]
    text: str
    given: Given

    @classmethod
    def of(cls, error: BaseException, given: Given) -> Failure:
        causes = list(_chain(error))
        return cls(causes, "\n".join(filter(None, map(str, causes))), given)

    def place(self, key: str, value: str = "") -> str:
        """Return ``FILE, line N: `` if a key stands on one line of the user's files only, and in no override."""
        if self.given.value(key) is not None:
            return ""
        chosen = self.given.own_files() or self.given.folders.own
        pattern = rf"[\s-]*(override )?[/\w.]*\b{re.escape(key.rpartition('.')[2])}\s*:.*{re.escape(value)}"
        found = [place for path in chosen for place in _lines(path, pattern)]
        return f"{found[0]}: " if len(found) == 1 else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _lines(path: Path, pattern: str) -> Iterator[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return (f"{path}, line {number}" for number, line in enumerate(lines, start=1) if re.match(pattern, line))


def line_of(path: Path, word: str) -> str:
    """Return ``FILE, line N`` for the first line of a file with a word in it, or ``FILE``."""
    return next(_lines(path, rf".*\b{re.escape(word)}\b"), str(path))
