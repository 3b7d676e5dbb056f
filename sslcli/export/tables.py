"""Tables of texts, numbers and vectors, written a few hundred rows at a time to limit memory."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from sslcli.export.base import Lines, needed


@dataclass(frozen=True)
class Column:
    """What stands in a column.

    Args:
        kind: texts, whole numbers, or numbers.
        width: of texts, the number of characters of the longest; of numbers, that of each row's vector; 0: no vector.
    """

    kind: Literal["text", "int64", "float32"]
    width: int = 0


Columns = Mapping[str, Column]  # by name, in order
Rows = Mapping[str, Any]  # B rows by column: texts [B], int64 (B,), float32 (B,) or (B, width)
Write = Callable[[Rows], None]


class Part(Protocol):
    """Rows with a column ``vector`` of features, such as those of the samples of a part of the data."""

    of: str  # what the rows are of, in words
    names: Mapping[str, str]  # the variables of the lines that load the table, and their columns

    def __len__(self) -> int: ...

    def columns(self) -> Columns:
        """Return the columns of the table."""

    def pieces(self) -> Iterator[tuple[Rows, list[str]]]:
        """Yield all rows, in order, with the names of those that cannot be read."""

    def again(self, index: Tensor) -> Rows:
        """Compute the rows at ``index`` (B,) once more."""


class Table:
    """A file format for tables."""

    suffix: str
    begins: bytes  # as in Format

    def needs(self) -> None:
        """Import the libraries of this format.

        Raises:
            UserError: a library is not installed.
        """

    def writer(self, path: Path, count: int, columns: Columns) -> AbstractContextManager[Write]:
        """Return a context that yields a function to append rows to the file ``path``, ``count`` in all."""
        raise NotImplementedError

    def read(self, path: Path, rows: np.ndarray, columns: Columns) -> tuple[int, Rows]:
        """Return the number of rows in the file, and the rows at ``rows``, ascending, without loading the others."""
        raise NotImplementedError

    def lines(self, path: Path, columns: Columns, names: Mapping[str, str]) -> Lines:
        """Return lines of Python that read columns; ``names`` has the column of each variable."""
        raise NotImplementedError


class ParquetTable(Table):
    """A Parquet file; vectors are lists of a fixed size."""

    suffix = ".parquet"
    begins = b"PAR1"

    def needs(self) -> None:
        needed("pyarrow", extra="parquet", by="format.table=parquet")

    @contextmanager
    def writer(self, path: Path, count: int, columns: Columns) -> Iterator[Write]:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        types = {"text": pa.string(), "int64": pa.int64(), "float32": pa.float32()}
        vectors = {name: column.width for name, column in columns.items() if column.kind == "float32" and column.width}
        kinds = {name: types[column.kind] for name, column in columns.items()}
        kinds |= {name: pa.list_(pa.float32(), width) for name, width in vectors.items()}
        often = [name for name in columns if name in ("label", "class", "split", "kind", "user", "item")]
        with ParquetWriter(path, pa.schema(kinds.items()), use_dictionary=often) as file:

            def array(name: str, values: Any) -> Any:
                if name in vectors:
                    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), vectors[name])
                return pa.array(values, kinds[name])

            def write(rows: Rows) -> None:
                arrays = [array(name, rows[name]) for name in columns]
                file.write_table(pa.Table.from_arrays(arrays, schema=file.schema))

            yield write

    def read(self, path: Path, rows: np.ndarray, columns: Columns) -> tuple[int, Rows]:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile

        found, start = [], 0
        with ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                here = rows[(rows >= start) & (rows < start + count)] - start
                if len(here):
                    found.append(file.read_row_group(group).take(here))
                start += count
            table = pa.concat_tables(found) if found else file.schema_arrow.empty_table()
            return file.metadata.num_rows, {name: _values(table[name]) for name in table.column_names}

    def lines(self, path: Path, columns: Columns, names: Mapping[str, str]) -> Lines:
        read = {
            variable: "combine_chunks().flatten().to_numpy().reshape(len(table), -1)"
            if columns[name].kind == "float32" and columns[name].width
            else "to_pylist()"
            if columns[name].kind == "text"
            else "to_numpy()"
            for variable, name in names.items()
        }
        return Lines(
            ["import pyarrow.parquet as pq", f"table = pq.read_table({str(path)!r})"],
            [f'{variable} = table["{names[variable]}"].{how}' for variable, how in read.items()],
        )


def _values(column: Any) -> Any:
    """Return a column of Arrow as ``Rows`` has it."""
    if str(column.type) == "string":
        return column.to_pylist()
    values = column.to_numpy()
    return np.stack(values) if values.dtype == object and len(values) else values


class NumpyTable(Table):
    """One structured array with a field for each column."""

    suffix = ".npy"
    begins = rb"\x93NUMPY"

    @contextmanager
    def writer(self, path: Path, count: int, columns: Columns) -> Iterator[Write]:
        record: list[Any] = []
        for name, column in columns.items():
            vector = ((column.width,),) if column.kind == "float32" and column.width else ()
            kind = {"text": f"<U{max(1, column.width)}", "int64": "<i8", "float32": "<f4"}[column.kind]
            record.append((name, kind, *vector))
        table: Any = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(record), shape=(count,))
        filled = 0

        def write(rows: Rows) -> None:
            nonlocal filled
            size = len(next(iter(rows.values())))
            for name in columns:
                table[filled : filled + size][name] = rows[name]
            filled += size

        yield write
        assert filled == count
        table.flush()

    def read(self, path: Path, rows: np.ndarray, columns: Columns) -> tuple[int, Rows]:
        table = np.load(path, mmap_mode="r")
        some = table[rows]
        names = some.dtype.names or ()
        return len(table), {n: some[n].tolist() if some.dtype[n].kind == "U" else some[n] for n in names}

    def lines(self, path: Path, columns: Columns, names: Mapping[str, str]) -> Lines:
        quoted = ", ".join(f'"{name}"' for name in names.values())
        return Lines(
            ["import numpy as np", f'table = np.load({str(path)!r}, mmap_mode="r")'],
            [f"{', '.join(names)} = (table[name] for name in ({quoted}))"],
        )


class CsvTable(Table):
    """A CSV file with a header; it has no vectors."""

    suffix = ".csv"

    def __init__(self, *names: str) -> None:
        self.begins = ",".join(names).encode()

    @contextmanager
    def writer(self, path: Path, count: int, columns: Columns) -> Iterator[Write]:
        with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(columns)
            yield lambda rows: out.writerows(
                zip(*(rows[n] if c.kind == "text" else map(str, rows[n]) for n, c in columns.items()))
            )

    def read(self, path: Path, rows: np.ndarray, columns: Columns) -> tuple[int, Rows]:
        wanted, found, count = {*rows.tolist()}, [], 0
        with path.open(newline="", encoding="utf-8", errors="surrogatepass") as file:
            reader = csv.reader(file)
            names = next(reader)
            for count, row in enumerate(reader, 1):
                if count - 1 in wanted:
                    found.append(row)
        texts = {name: [row[i] for row in found] for i, name in enumerate(names)}
        return count, {n: t if columns[n].kind == "text" else np.array(t, columns[n].kind) for n, t in texts.items()}

    def lines(self, path: Path, columns: Columns, names: Mapping[str, str]) -> Lines:
        def read(name: str) -> str:
            value = f'row["{name}"]'
            return {"text": value, "int64": f"int({value})", "float32": f"float({value})"}[columns[name].kind]

        return Lines(
            ["import csv", f'table = list(csv.DictReader(open({str(path)!r}, newline="", encoding="utf-8")))'],
            [f"{variable} = [{read(name)} for row in table]" for variable, name in names.items()],
        )
