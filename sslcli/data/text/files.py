"""Texts in the user's files: which files and columns are read, and what each record says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sslcli.config.ranges import Count
from sslcli.data.base import Dataset
from sslcli.data.pictures.file_patterns import find
from sslcli.data.split_names import TEST, TRAIN, VALIDATION, named_split, split_in
from sslcli.data.text.lines import Invalid
from sslcli.data.text.rows import Counts, Row, Source
from sslcli.data.text.tables import FORMATS, Lines, Reading
from sslcli.data.text.texts import Texts
from sslcli.errors import UserError, one_line, suggest

NONE = "none"
_SHOWN = 40  # characters of a column's name in a message


def text(
    *,
    path: str,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    split: str | None = None,
    length: Count = 64,
    tokenizer: str = "wordpiece",
    vocab_size: Count | None = None,
    invalid: Invalid = "replace",
    quotes: bool = True,
    holdout: float | None = None,
) -> Dataset:
    """Make a dataset of the texts in some files, in their order.

    Args:
        path: a file, a folder, a pattern or a list in braces. The suffix names the format: .csv and .tsv with a header,
            .jsonl, .parquet; else each line is a text.
        text: the column of texts; None is the column called ``text``, or the only one.
        pair: a column of second texts, such as titles, which become the column ``pair``.
        label: the column of classes; None is the column called ``label``, if there is one; ``none`` reads none.
        split: the column that says train, test or validation; None is the column called ``split``, if there is one;
            ``none`` reads none. Without it, names of files say it (``test.csv``), or a hash of the text does.
        length: tokens of a text, with those of begin and end; longer ones are cut and counted.
        tokenizer: ``wordpiece`` or ``bpe``, trained on the training part; or a tokenizer.json, or a folder with one.
        vocab_size: tokens of a trained tokenizer; None is 8,000.
        invalid: bytes that are no UTF-8: ``replace`` puts U+FFFD there and counts the lines, ``refuse`` stops.
        quotes: whether quotes enclose fields of CSV and TSV.
        holdout: a fraction of the training texts to hold out for probes instead of a test part, chosen by a hash of
            the text. None holds out the test part, or, where there is none, 0.2 with labels, else 0.05.
    """
    source = TextFiles(path, {"text": text, "pair": pair, "label": label, "split": split}, Reading(invalid, quotes))
    return Texts(source, length=length, tokenizer=tokenizer, vocab_size=vocab_size, holdout=holdout)


class TextFiles(Source):
    """The records of some files of one format.

    Args:
        path: as in ``text``.
        names: the column of each role (text, pair, label, split), as in ``text``.
        reading: how files are read.

    Raises:
        UserError: there is no such file or column, or a file cannot be read.
    """

    def __init__(self, path: str, names: dict[str, str | None], reading: Reading) -> None:
        self.files = _files(path)
        self._tables = [FORMATS.get(file.suffix.lower(), Lines)(file, reading) for file in self.files]
        self.wanted = self._resolved(names)
        for table in self._tables:
            for role, name in self.wanted.items():
                self._check(table, role, name)
        self.columns = tuple(role for role in ("text", "pair") if role in self.wanted)
        self.has_labels = "label" in self.wanted
        self._parts = [] if "split" in self.wanted else _parts(self.files, Path(path).expanduser())
        self.has_parts = "split" in self.wanted or bool(self._parts)
        self.settings = f"{self.wanted} {reading}"

    def rows(self, counts: Counts) -> Iterator[Row]:
        roles = list(self.wanted)
        for number, table in enumerate(self._tables):
            part = self._parts[number] if self._parts else ""
            for row, values in table.records(list(self.wanted.values()), counts):
                found = dict(zip(roles, values))
                place = f"{table.path}, {table.unit} {row + 1}"
                yield Row(
                    _text(found["text"], self.wanted["text"], place, counts),
                    _text(found["pair"], self.wanted["pair"], place, counts) if "pair" in found else None,
                    _class(found.get("label"), place),
                    self._part(found["split"], place) if "split" in found else part,
                    (number, row),
                )

    def name_of(self, place: tuple[int, int]) -> str:
        number, row = place
        return f"{self.files[number].name}, {self._tables[number].unit} {row + 1}"

    def _resolved(self, names: dict[str, str | None]) -> dict[str, str]:
        """Return the columns that are read by role; those that the user does not name are found in the first file."""
        known = self._tables[0].names
        found = {}
        for role, name in names.items():
            name = role if name is None and role != "pair" and role in known else name
            if name not in (None, NONE):
                found[role] = name
        if "text" not in found:
            if len(known) != 1:
                raise UserError(
                    f"dataset.text: {self.files[0]} has no column 'text'; name one of its columns: {_shown(known)}."
                )
            found = {"text": known[0], **found}
        return found

    def _check(self, table: Lines, role: str, name: str) -> None:
        count = list(table.names).count(name)
        if not count:
            other = "" if table is self._tables[0] else f", which {self._tables[0].path.name} has"
            raise UserError(
                f"dataset.{role}: {table.path} has no column '{one_line(name)}'{other}. {_hint(name, table)}"
            )
        if count > 1:
            raise UserError(f"dataset.{role}: {table.path} has {count} columns '{one_line(name)}'. Rename one.")

    def _part(self, value: Any, place: str) -> str:
        part = named_split(str(value))
        if part is None:
            given = one_line(str(value))[:_SHOWN]
            raise UserError(f"dataset.split: {place}: '{given}' is none of {TRAIN}, {VALIDATION} and {TEST}.")
        return part


def _files(path: str) -> list[Path]:
    """Return the files that ``path`` gives, which must be of one format."""
    found = find(path, tuple(FORMATS))
    suffixes = sorted({file.suffix for file in found})
    if len({FORMATS.get(suffix.lower(), Lines) for suffix in suffixes}) > 1:
        raise UserError(
            f"dataset.path: {path} holds files of several formats ({', '.join(suffixes)}); choose by a pattern, "
            f"such as '{path.rstrip('/')}/*{suffixes[0]}'."
        )
    return found


def _parts(files: Sequence[Path], root: Path) -> list[str]:
    """Return the part of each file by its name; [] if the names do not tell training from other files."""
    names = [split_in(file.relative_to(root) if root.is_dir() else Path(file.name)) or TRAIN for file in files]
    return names if TRAIN in names and {TEST, VALIDATION} & {*names} else []


def _text(value: Any, column: str, place: str, counts: Counts) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(
            f"dataset.text: {place}: column '{one_line(column)}' has a {type(value).__name__}, and a text is a string."
        )
    if "\0" in value:
        counts["nul"] += 1
        return value.replace("\0", " ")
    return value


def _class(value: Any, place: str) -> str:
    if value is None:
        return ""
    if isinstance(value, (dict, list, bytes)):
        raise UserError(f"dataset.label: {place}: a {type(value).__name__}, and a class is a number or a name.")
    return str(value).strip()


def _hint(name: str, table: Lines) -> str:
    if type(table) is Lines:
        return "Its lines are texts; the suffixes .csv, .tsv, .jsonl and .parquet have columns."
    return suggest(name, [one_line(known)[:_SHOWN] for known in table.names])


def _shown(names: Sequence[str]) -> str:
    return ", ".join(one_line(name)[:_SHOWN] for name in names[:20]) + (", ..." if len(names) > 20 else "")
