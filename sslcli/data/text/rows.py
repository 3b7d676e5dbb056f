"""The interface of sources of texts: rows that are read one after the other, never all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

Counts = Counter[str]  # what was changed or left out while the rows were read, by a word


class Row(NamedTuple):
    """One text with what the data say of it."""

    text: str
    pair: str | None = None  # a second text that belongs to it, such as a title; None where the source has none
    label: str = ""  # the name of its class; "" for none
    part: str = ""  # train, test or validation; "" where the source has no split
    place: tuple[int, int] = (0, 0)  # the number of its file, and of its row or line there, both from 0


class Source:
    """Where texts come from.

    Attributes:
        columns: ``("text",)``, or ``("text", "pair")``.
        has_labels: whether rows may have labels.
        has_parts: whether the data are split.
        files: the files that are read, for the fingerprint and the cache.
        settings: what else the rows depend on, in one line.
    """

    columns: tuple[str, ...] = ("text",)
    has_labels: bool = False
    has_parts: bool = False
    files: Sequence[Path] = ()
    settings: str = ""

    def rows(self, counts: Counts) -> Iterator[Row]:
        """Yield all rows in order; what is changed is counted.

        Raises:
            UserError: a row cannot be read; the message says where it is.
        """
        raise NotImplementedError

    def name_of(self, place: tuple[int, int]) -> str:
        """Return the place of a row for people."""
        number, row = place
        return f"{self.files[number].name}, row {row + 1}"
