"""Reads a CSV or TSV file with a header, and says in which line it is damaged."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from sslcli.data.regular_files import open_regular
from sslcli.data.vectors.column import Column, cleaned
from sslcli.errors import UserError, one_line

TYPED = (".inter", ".user", ".item")  # RecBole's, in whose header a name may have a type, ``age:float``
_TABS = (".tsv", *TYPED)
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_csv(path: Path, missing: Collection[str]) -> tuple[list[Column], list[str]]:
    """Return the columns of a file, and notes of what is left out.

    Fields are separated by tabs in a ``.tsv`` file and in RecBole's, else by commas, or by semicolons if the header has
    no comma. Empty lines are passed over. A column without a name, such as the row numbers that pandas writes, is left
    out.

    Raises:
        UserError: the file is empty, is no UTF-8, has a NUL, a quote that never closes, a row of another length than
            its header, or no header with different names.
    """
    lines: list[int] = []
    records = _records(path, lines)
    header = [name.strip() for name in next(records, [])]
    if not header:
        raise UserError(f"dataset.path: {path} is empty.")
    _check_header(path, header)
    cells: list[list[str]] = [[] for _ in header]
    for record in records:
        if len(record) != len(header):
            raise UserError(
                f"dataset.path: {path}, line {lines[-1]} has {len(record)} fields, and the header {len(header)}."
            )
        for column, cell in zip(cells, record):
            column.append(cell)
    if len(lines) < 2:
        raise UserError(f"dataset.path: {path} has a header and no rows.")
    place = _place(path, lines[1:])
    named = [Column(name, cleaned(values, missing), place) for name, values in zip(header, cells) if name]
    without = header.count("")
    return named, [f"{without} without a name"] if without else []


def _place(path: Path, lines: Sequence[int]) -> Callable[[int], str]:
    return lambda i: f"{path}, line {lines[i]}"


def _records(path: Path, lines: list[int]) -> Iterator[list[str]]:
    """Yield the records of a file that are not empty, and append the number of each one's first line to ``lines``."""
    with open_regular(path) as file:
        first = file.readline()
        file.seek(0)
        text = _decoded(path, file)
        delimiter = "\t" if path.suffix.lower() in _TABS else ";" if b"," not in first and b";" in first else ","
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        while True:
            start = reader.line_num + 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise UserError(
                    f"dataset.path: {path}, line {start} has a quote that never closes, or one that closes inside a "
                    f"field ({error})."
                ) from None
            if record is None:
                return
            if record:
                lines.append(start)
                yield record


def _decoded(path: Path, file: Iterator[bytes]) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if number == 1 and line[:2] in _UTF16:
            raise UserError(f"dataset.path: {path} is UTF-16. Save it as UTF-8.")
        if b"\0" in line:
            raise UserError(f"dataset.path: {path}, line {number} has a NUL byte: it is damaged, or no text.")
        try:
            yield (line.removeprefix(_BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"dataset.path: {path}, line {number} is no UTF-8 (byte {error.start + 1} is {line[error.start]:#x}). "
                "Save it as UTF-8."
            ) from None


def _check_header(path: Path, header: Sequence[str]) -> None:
    counted = [str(number) for number in range(len(header))]
    if list(header) != counted and all(_is_number(name) for name in header):
        raise UserError(
            f"dataset.path: {path}, line 1 has only numbers, and the first line must name the columns. Add it, such as "
            f"{','.join(f'x{number}' for number in counted[:3])}{',...' * (len(header) > 3)}"
        )
    for name in header:
        if name and header.count(name) > 1:
            raise UserError(
                f"dataset.path: {path}, line 1 has the column '{one_line(name)}' twice. Rename one of them."
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
