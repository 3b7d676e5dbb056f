"""The lines of a text file, decoded one by one: bytes that are no UTF-8 are replaced and counted, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from sslcli.data.regular_files import open_regular
from sslcli.data.text.rows import Counts
from sslcli.errors import UserError

Invalid = Literal["replace", "refuse"]

LONGEST = 2**24  # bytes of a line; a file without line breaks would fill the memory
_BOM = b"\xef\xbb\xbf"
_OTHERS = (  # first bytes of files that are no text in UTF-8, with what to do
    (b"\xff\xfe", "UTF-16: iconv -f UTF-16 -t UTF-8 makes UTF-8 of it"),
    (b"\xfe\xff", "UTF-16: iconv -f UTF-16 -t UTF-8 makes UTF-8 of it"),
    (b"\x1f\x8b", "compressed: gunzip it first"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"PAR1", "a parquet file: give it the suffix .parquet"),
)


def lines_of(path: Path, invalid: Invalid, counts: Counts) -> Iterator[str]:
    """Yield the lines of a file with their ends. NUL characters become blanks, which are counted by lines.

    Raises:
        UserError: a line has bytes that are no UTF-8 and ``invalid`` is ``refuse``, or has more than 16 MiB; the file
            is empty, or no text file.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if number == 1:
                _check(path, line)
                line = line.removeprefix(_BOM)
            if len(line) > LONGEST:
                raise UserError(f"dataset.path: {path}, line {number} has more than {LONGEST:,} bytes. Break it up.")
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                if invalid == "refuse":
                    raise UserError(
                        f"dataset.path: {path}, line {number}: byte 0x{line[error.start]:02x} at place "
                        f"{error.start + 1} is no UTF-8. dataset.invalid=replace puts U+FFFD there and counts it."
                    ) from None
                counts["invalid"] += 1
                text = line.decode(errors="replace")
            if "\0" in text:
                counts["nul"] += 1
                text = text.replace("\0", " ")
            yield text
    if not number:
        raise UserError(f"dataset.path: {path} is empty.")


def _check(path: Path, line: bytes) -> None:
    for start, kind in _OTHERS:
        if line.startswith(start):
            raise UserError(f"dataset.path: {path} is {kind}.")
