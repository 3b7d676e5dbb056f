"""Reads a table of interactions from CSV, TSV, RecBole's ``.inter`` or Parquet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslcli.data.interactions.coded import Coded
from sslcli.data.regular_files import open_regular
from sslcli.data.vectors.csv_file import TYPED, read_csv
from sslcli.errors import UserError
from sslcli.run_dir.formatting import first_line


@dataclass(frozen=True)
class Table:
    """A file with one interaction a row.

    Args:
        source: the file, for messages.
        names: its columns.
        column: reads one of them.
        count: the number of rows.
    """

    source: str
    names: list[str]
    column: Callable[[str], Coded]
    count: int


def read_table(path: Path) -> Table:
    """Read a table by the suffix of its file: ``.csv``, ``.tsv``, ``.parquet``, or RecBole's ``.inter`` and its like.

    Names of columns in those of RecBole have a type, ``user_id:token``, which is left out.

    Raises:
        UserError: the suffix is unknown, or the file cannot be read.
    """
    texts = dict.fromkeys((".csv", ".tsv", *TYPED), _read_text)
    kinds = {**texts, ".parquet": _read_parquet}
    if path.suffix.lower() not in kinds:
        raise UserError(f"dataset.path: {path} must end in {', '.join(kinds)}; tables are told by their suffix.")
    try:
        with open_regular(path):
            pass
        table = kinds[path.suffix.lower()](path)
    except OSError as error:
        raise UserError(f"dataset.path: {path} cannot be read ({error.strerror or first_line(error)}).") from None
    if not table.count:
        raise UserError(f"dataset.path: {path} has no rows.")
    return table


def _read_text(path: Path) -> Table:
    columns, _ = read_csv(path, ())
    typed = path.suffix.lower() in TYPED
    found = {(column.name.partition(":")[0] if typed else column.name): column for column in columns}

    def column(name: str) -> Coded:
        return Coded.of(name, found[name].values, found[name].place)

    return Table(str(path), list(found), column, len(columns[0].values) if columns else 0)


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("dataset.path: a parquet file needs pyarrow: pip install 'sslcli[parquet]'") from None
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise UserError(f"dataset.path: {path} cannot be read ({first_line(error)}). Fetch it again.") from None

    def column(name: str) -> Coded:
        try:
            return _of_arrow(file.read([name], use_threads=False).column(0), name, path)
        except pa.ArrowException as error:
            raise UserError(f"dataset.path: the column '{name}' of {path}: {first_line(error)}.") from None

    return Table(str(path), list(file.schema_arrow.names), column, file.metadata.num_rows)


def _of_arrow(values: Any, name: str, path: Path) -> Coded:
    """Return a column with exact values: integers of 64 bits are never floats; dates are their numbers."""
    import pyarrow as pa
    import pyarrow.types as kinds

    if kinds.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if kinds.is_date32(values.type):
        values = values.cast(pa.int32())
    elif kinds.is_timestamp(values.type) or kinds.is_date64(values.type):
        values = values.cast(pa.int64())
    if kinds.is_nested(values.type) or kinds.is_binary(values.type):
        raise UserError(f"dataset.path: the column '{name}' of {path} is {values.type}. Convert it to texts.")
    coded = values.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    codes = np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
    different = [_plain(value) for value in coded.dictionary.to_pylist()]
    known = [value for value in different if value is not None]
    rank, number = [], 0
    for value in different:
        rank.append(-1 if value is None else number)
        number += value is not None
    return Coded(name, known, np.array([*rank, -1])[codes], lambda i: f"{path}, row {i}")


def _plain(value: Any) -> Any:
    """Return a value, a text without the spaces around it, or None for no value."""
    if isinstance(value, str):
        return value.strip() or None
    return None if value != value else value  # NaN
