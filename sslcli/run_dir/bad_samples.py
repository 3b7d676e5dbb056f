"""Counts corrupt samples, lists them in the run directory, and stops a run that has too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from sslcli.config.secrets import hide
from sslcli.errors import UserError, one_line
from sslcli.run_dir import inside

DEFAULT_SHARE, DEFAULT_COUNT = 0.01, 5  # a small dataset, too, may have a few corrupt samples


class CorruptSample(Protocol):
    """A sample that cannot be read."""

    @property
    def where(self) -> str:
        """Where it is stored: a path, or a row of a file."""

    @property
    def reason(self) -> str:
        """Why it cannot be read."""


class BadSampleList:
    """Writes ``bad_samples.txt``: for each corrupt sample a line with its place, a tab and the reason.

    Args:
        path: the file. It is written when the first corrupt sample is found, and read when the run is resumed.
        num_samples: number of samples in the dataset.
        max_bad: the share of samples that may be corrupt; null allows one per cent, but at least five samples.
        warn: called with a message when the first corrupt sample is found.
    """

    def __init__(self, path: Path, num_samples: int, max_bad: float | None, warn: Callable[[str], None]) -> None:
        self.path, self._num_samples, self._warn = path, num_samples, warn
        if max_bad is None:
            self.allowed = max(int(DEFAULT_SHARE * num_samples), DEFAULT_COUNT)
        else:
            self.allowed = int(max_bad * num_samples)
        self._lines: dict[str, None] = {}  # in the order in which they were found

    def add(self, found: Iterable[CorruptSample]) -> None:
        """Add corrupt samples; those that are listed already are ignored.

        Raises:
            UserError: more samples are corrupt than ``max_bad`` allows.
        """
        lines = [f"{one_line(bad.where)}\t{one_line(hide(bad.reason))}" for bad in found]
        if not lines:
            return
        if not self._lines:
            before = inside.read(self.path.parent, self.path.name) or b""
            self._lines = dict.fromkeys(before.decode(errors="surrogateescape").splitlines())
        new = [line for line in dict.fromkeys(lines) if line not in self._lines]
        if not new:
            return
        if not self._lines:
            self._warn(f"{new[0].replace(chr(9), ': ')}. Bad samples are replaced by others and listed in {self.path}.")
        self._lines.update(dict.fromkeys(new))
        text = "".join(f"{line}\n" for line in new)
        inside.append(self.path.parent, self.path.name, text.encode(errors="surrogateescape"))
        self.check()

    def check(self) -> None:
        """Raise UserError if more samples are corrupt than ``max_bad`` allows."""
        count = len(self._lines)
        if count > self.allowed:
            first = next(iter(self._lines)).replace("\t", ": ")
            raise UserError(
                f"dataset.max_bad: {count} of {self._num_samples:,} samples cannot be read, and {self.allowed} may. "
                f"The first is {first}. All are listed in {self.path}: repair or remove them, or raise dataset.max_bad."
            )
