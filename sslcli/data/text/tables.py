"""Files of texts in four formats, read record by record: lines, CSV and TSV, JSON lines, parquet."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli.data.text.lines import LONGEST, Invalid, lines_of
from sslcli.data.text.rows import Counts
from sslcli.errors import UserError
from sslcli.run_dir.formatting import first_line

Record = tuple[int, list[Any]]  # the number of its line or row, from 0, and the values of the wanted columns
_BATCH = 1024  # rows of a parquet file that are read at a time


@dataclass
class Reading:
    """How files are read.

    Attributes:
        invalid: what happens to bytes that are no UTF-8.
        quotes: whether quotes enclose the fields of CSV and TSV.
    """

    invalid: Invalid = "replace"
    quotes: bool = True


class Lines:
    """A file whose lines are texts."""

    unit = "line"

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path, self.reading = path, reading
        self.names: Sequence[str] = ("text",)

    def records(self, wanted: Sequence[str], counts: Counts) -> Iterator[Record]:
        """Yield the values of the ``wanted`` columns of each record; what is changed is counted.

        Raises:
            UserError: a record cannot be read; the message says where it is.
        """
        for number, line in enumerate(lines_of(self.path, self.reading.invalid, counts)):
            yield number, [line.rstrip("\r\n")]


class Separated(Lines):
    """A file with a header and fields that are separated by commas, or by tabs where its suffix is .tsv or .tab."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path, self.reading = path, reading
        self.names = next(self._fields(Counter()))[1]

    def records(self, wanted: Sequence[str], counts: Counts) -> Iterator[Record]:
        places = [self.names.index(name) for name in wanted]
        fields = self._fields(counts)
        next(fields)
        for number, values in fields:
            if len(values) != len(self.names):
                raise UserError(
                    f"dataset.path: {self.path}, line {number + 1} has {len(values)} fields, and the header names "
                    f"{len(self.names)}. Correct it{self._way_out()}."
                )
            yield number, [values[place] for place in places]

    def _fields(self, counts: Counts) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(LONGEST)
        lines = csv.reader(
            lines_of(self.path, self.reading.invalid, counts),
            delimiter="\t" if self.path.suffix.lower() in (".tsv", ".tab") else ",",
            quoting=csv.QUOTE_MINIMAL if self.reading.quotes else csv.QUOTE_NONE,
            strict=True,
        )
        while True:
            start = lines.line_num
            try:
                values = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                unclosed = "unexpected end" in str(error) or "field limit" in str(error)
                reason = "a quote that is opened here is never closed" if unclosed else str(error)
                raise UserError(
                    f"dataset.path: {self.path}, line {start + 1}: {reason}. Correct it{self._way_out()}."
                ) from None
            if values:  # not of an empty line
                yield start, values

    def _way_out(self) -> str:
        return ", or add dataset.quotes=false where quotes are characters like others" if self.reading.quotes else ""


class JsonLines(Lines):
    """A file with a JSON object a line, whose keys are the columns."""

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path, self.reading = path, reading
        self.names = next((list(values) for _, values in self._objects(Counter())), [])

    def records(self, wanted: Sequence[str], counts: Counts) -> Iterator[Record]:
        for number, values in self._objects(counts):
            yield number, [values.get(name) for name in wanted]

    def _objects(self, counts: Counts) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(lines_of(self.path, self.reading.invalid, counts)):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                array = " The file is one array: write an object a line." if line.lstrip()[0] == "[" else ""
                raise UserError(
                    f"dataset.path: {self.path}, line {number + 1} is no JSON ({first_line(error)}).{array}"
                ) from None
            if not isinstance(values, dict):
                raise UserError(
                    f"dataset.path: {self.path}, line {number + 1} is a JSON {type(values).__name__}, and a record is "
                    "an object."
                )
            yield number, values


class Parquet(Lines):
    """A parquet file; classes have the names that Hugging Face's ``datasets`` wrote into it."""

    unit = "row"

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        with self._readable() as library:
            schema = library.read_schema(path)
        self.names = schema.names
        self._classes = _class_names(schema.metadata or {})

    def records(self, wanted: Sequence[str], counts: Counts) -> Iterator[Record]:
        number = 0
        with self._readable() as library, library.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as file:
            for batch in file.iter_batches(_BATCH, columns=list(dict.fromkeys(wanted)), use_threads=False):
                columns = [self._values(name, batch.column(name).to_pylist()) for name in wanted]
                for values in zip(*columns):
                    yield number, list(values)
                    number += 1

    def _values(self, name: str, values: list[Any]) -> list[Any]:
        names = self._classes.get(name)
        if names is None:
            return values
        return [names[value] if isinstance(value, int) and 0 <= value < len(names) else value for value in values]

    @contextmanager
    def _readable(self) -> Iterator[Any]:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise UserError(f"dataset.path: {self.path} needs pyarrow: pip install 'sslcli[parquet]'") from None
        try:
            yield pq
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"dataset.path: {self.path} cannot be read ({first_line(error)}). Fetch it again."
            ) from None


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of classes by column, as ``datasets`` writes them."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(value) for value in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


FORMATS: Mapping[str, type[Lines]] = {  # by suffix
    **dict.fromkeys((".txt", ".text"), Lines),
    **dict.fromkeys((".csv", ".tsv", ".tab"), Separated),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), JsonLines),
    ".parquet": Parquet,
}
