"""Counts the samples that cannot be read, lists them in the run directory, and stops a run that has too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from sslcli.errors import UserError
from sslcli.run_dir.files import writable

DEFAULT_SHARE, DEFAULT_COUNT = 0.01, 5  # a small folder may have a few bad pictures, too


class CorruptSample(Protocol):
    """A sample that cannot be read."""

    @property
    def where(self) -> str:
        """Its place: a path, or a row of a file."""

    @property
    def reason(self) -> str:
        """Why it cannot be read."""


class BadSampleList:
    """``bad_samples.txt``: one line a sample, its place and the reason with a tab between.

    Args:
        path: the file; written when the first bad sample is met, read again when the run goes on.
        num_samples: of the dataset.
        max_bad: the share of them that may be bad; null is one per cent, and five samples at least.
        warn: told of the first one.
    """

    def __init__(self, path: Path, num_samples: int, max_bad: float | None, warn: Callable[[str], None]) -> None:
        self.path, self._num_samples, self._warn = path, num_samples, warn
        if max_bad is None:
            self.allowed = max(int(DEFAULT_SHARE * num_samples), DEFAULT_COUNT)
        else:
            self.allowed = int(max_bad * num_samples)
        self._lines: dict[str, None] = {}  # in the order in which they were met

    def add(self, found: Iterable[CorruptSample]) -> None:
        """Count those that are new.

        Raises:
            UserError: there are more than the run may have.
        """
        lines = [f"{_plain(bad.where)}\t{_plain(bad.reason)}" for bad in found]
        if not lines:
            return
        if not self._lines and self.path.is_file():
            self._lines = dict.fromkeys(self.path.read_text(errors="surrogateescape").splitlines())
        new = [line for line in dict.fromkeys(lines) if line not in self._lines]
        if not new:
            return
        if not self._lines:
            self._warn(f"{new[0].replace(chr(9), ': ')}. Bad samples are replaced by others and listed in {self.path}.")
        self._lines.update(dict.fromkeys(new))
        with writable(self.path), self.path.open("a", errors="surrogateescape") as file:
            file.write("".join(f"{line}\n" for line in new))
        self.check()

    def check(self) -> None:
        """Raise if the limit is passed."""
        count = len(self._lines)
        if count > self.allowed:
            first = next(iter(self._lines)).replace("\t", ": ")
            raise UserError(
                f"dataset.max_bad: {count} of {self._num_samples:,} samples cannot be read, and {self.allowed} may. "
                f"The first is {first}. All are listed in {self.path}: mend or remove them, or raise dataset.max_bad."
            )


def _plain(text: str) -> str:
    """Without what would break a line apart."""
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
