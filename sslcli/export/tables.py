"""Tables of embeddings, written a few hundred rows at a time to limit memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslcli.export.base import Lines, needed


@dataclass
class Rows:
    """Rows of a table: B samples."""

    path: list[str]
    label: np.ndarray  # (B,) int64, -1 for none
    classes: list[str]  # the name of each label, "" for none
    split: list[str]
    vector: np.ndarray  # (B, D) float32


Write = Callable[[Rows], None]


class Table:
    """A file format for tables."""

    suffix: str
    begins: bytes  # as in Format

    def needs(self) -> None:
        """Import the libraries of this format.

        Raises:
            UserError: a library is not installed.
        """

    def writer(self, path: Path, count: int, width: int, longest: Mapping[str, int]) -> AbstractContextManager[Write]:
        """Return a context that yields a function to append rows.

        Args:
            path: the file.
            count: number of all rows.
            width: width of a vector.
            longest: number of characters of the longest ``path`` and of the longest ``class``.
        """
        raise NotImplementedError

    def read(self, path: Path, rows: np.ndarray) -> tuple[int, Rows]:
        """Return the number of rows in the file, and the rows at ``rows``, ascending, without loading the others."""
        raise NotImplementedError

    def lines(self, path: Path) -> Lines:
        """Return lines of Python that read ``paths``, ``labels``, ``classes`` and ``vectors`` (N, D)."""
        raise NotImplementedError


class ParquetTable(Table):
    """Columns path, label, class, split and vector."""

    suffix = ".parquet"
    begins = b"PAR1"

    def needs(self) -> None:
        needed("pyarrow", extra="parquet", by="format=embeddings")

    @contextmanager
    def writer(self, path: Path, count: int, width: int, longest: Mapping[str, int]) -> Iterator[Write]:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        kinds = {
            "path": pa.string(),
            "label": pa.int64(),
            "class": pa.string(),
            "split": pa.string(),
            "vector": pa.list_(pa.float32(), width),
        }
        with ParquetWriter(path, pa.schema(kinds.items()), use_dictionary=["label", "class", "split"]) as file:

            def write(rows: Rows) -> None:
                flat = pa.array(rows.vector.reshape(-1))
                vectors = pa.FixedSizeListArray.from_arrays(flat, width)
                columns = [rows.path, rows.label, rows.classes, rows.split, vectors]
                file.write_table(pa.Table.from_arrays([pa.array(c) for c in columns], schema=file.schema))

            yield write

    def read(self, path: Path, rows: np.ndarray) -> tuple[int, Rows]:
        from pyarrow.parquet import ParquetFile

        found = Rows([], np.zeros(0, np.int64), [], [], np.zeros((0, 0), np.float32))
        start = 0
        with ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                here = rows[(rows >= start) & (rows < start + count)] - start
                if len(here):
                    found = _joined(found, _of_arrow(file.read_row_group(group).take(here)))
                start += count
            return file.metadata.num_rows, found

    def lines(self, path: Path) -> Lines:
        return Lines(
            ["import pyarrow.parquet as pq", f"table = pq.read_table({str(path)!r})"],
            [
                'paths, labels = table["path"].to_pylist(), table["label"].to_numpy()',
                'classes = table["class"].to_pylist()',
                'vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)',
            ],
        )


def _of_arrow(table: Any) -> Rows:
    paths, classes, splits = (table[name].to_pylist() for name in ("path", "class", "split"))
    return Rows(paths, table["label"].to_numpy(), classes, splits, np.stack(table["vector"].to_numpy()))


def _joined(first: Rows, then: Rows) -> Rows:
    if not first.path:
        return then
    label, vector = np.concatenate([first.label, then.label]), np.concatenate([first.vector, then.vector])
    return Rows(first.path + then.path, label, first.classes + then.classes, first.split + then.split, vector)


class NumpyTable(Table):
    """One structured array with the fields path, label, class, split and vector."""

    suffix = ".npy"
    begins = rb"\x93NUMPY"

    @contextmanager
    def writer(self, path: Path, count: int, width: int, longest: Mapping[str, int]) -> Iterator[Write]:
        texts = {name: f"<U{max(1, length)}" for name, length in longest.items()}
        record = [
            ("path", texts["path"]), ("label", "<i8"), ("class", texts["class"]), ("split", "<U8"),
            ("vector", "<f4", (width,)),
        ]  # fmt: skip
        table: Any = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(record), shape=(count,))
        filled = 0

        def write(rows: Rows) -> None:
            nonlocal filled
            place = table[filled : filled + len(rows.path)]
            place["path"], place["label"], place["class"] = rows.path, rows.label, rows.classes
            place["split"], place["vector"] = rows.split, rows.vector
            filled += len(rows.path)

        yield write
        assert filled == count
        table.flush()

    def read(self, path: Path, rows: np.ndarray) -> tuple[int, Rows]:
        table = np.load(path, mmap_mode="r")
        some = table[rows]
        paths, classes, splits = (some[name].tolist() for name in ("path", "class", "split"))
        return len(table), Rows(paths, some["label"], classes, splits, some["vector"])

    def lines(self, path: Path) -> Lines:
        return Lines(
            ["import numpy as np", f'table = np.load({str(path)!r}, mmap_mode="r")'],
            ['paths, labels, classes, vectors = (table[name] for name in ("path", "label", "class", "vector"))'],
        )
