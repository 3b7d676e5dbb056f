"""Reads a parquet or arrow file with a column of pictures by pyarrow, in order, a few rows at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sslcli.errors import UserError, suggest
from sslcli.run_dir.formatting import first_line

_ROWS = 64  # rows that are read at a time
_BUFFER = 2**20  # bytes; without a buffer size, pyarrow reads the column of a whole row group at once


class Table:
    """A parquet or arrow file with a column of pictures.

    A picture is a value of bytes, or the field ``bytes`` of a struct, as Hugging Face's ``datasets`` writes it.

    Args:
        path: a file; it is parquet if its suffix is .parquet, else one of arrow's two formats.
        column: the column of pictures; None uses the only column of bytes, or the one called ``image``.
        label: the column with numbers or names of classes; None uses ``label`` if there is such a column.

    Raises:
        UserError: pyarrow is not installed, the file cannot be read, or it has no such column.
    """

    def __init__(self, path: Path, column: str | None, label: str | None) -> None:
        self.path = path
        with self._readable():
            schema = self._schema()
        self.column = self._picture_column(schema, column)
        if label is not None and label not in schema.names:
            raise UserError(f"dataset.label: {path} has no column '{label}'. {suggest(label, schema.names)}")
        self.label = "label" if label is None and "label" in schema.names else label

    def pictures(self) -> Iterator[bytes]:
        """Yield the pictures in the order of the rows, and empty bytes for a missing picture."""
        import pyarrow.compute as pc
        import pyarrow.types as kinds

        with self._readable():
            for values in self._values(self.column):
                pictures = pc.struct_field(values, "bytes") if kinds.is_struct(values.type) else values
                for picture in pictures.to_pylist():
                    yield picture or b""

    def classes(self) -> np.ndarray | None:
        """Return the classes of the rows as bytes, empty for a missing class; None if there is no label column.

        Raises:
            UserError: the column has neither numbers nor names.
        """
        import pyarrow as pa

        if self.label is None:
            return None
        texts: list[bytes] = []
        with self._readable():
            for values in self._values(self.label):
                try:
                    texts += [(text or "").encode() for text in values.cast(pa.string()).to_pylist()]
                except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
                    raise UserError(
                        f"dataset.label: column '{self.label}' of {self.path} is {values.type}, "
                        "and a class is a number or a name."
                    ) from None
        return np.array(texts, "S")

    def names(self) -> list[str]:
        """Return the names of the classes 0, 1, ... that Hugging Face's ``datasets`` wrote into the file, or []."""
        import pyarrow.types as kinds

        with self._readable():
            schema = self._schema()
        if self.label is None or not kinds.is_integer(schema.field(self.label).type):
            return []
        about = (schema.metadata or {}).get(b"huggingface", b"{}")
        try:
            return [str(name) for name in json.loads(about)["info"]["features"][self.label]["names"]]
        except (ValueError, LookupError, TypeError):
            return []

    def _picture_column(self, schema: Any, column: str | None) -> str:
        candidates = [field.name for field in schema if _holds_bytes(field.type)]
        if column is not None:
            if column not in schema.names:
                raise UserError(
                    f"dataset.column: {self.path} has no column '{column}'. {suggest(column, schema.names)}"
                )
            if column not in candidates:
                kind = schema.field(column).type
                raise UserError(f"dataset.column: '{column}' of {self.path} is {kind}, and pictures are bytes.")
            return column
        if len(candidates) == 1 or "image" in candidates:
            return candidates[0] if len(candidates) == 1 else "image"
        if candidates:
            raise UserError(
                f"dataset.column: {self.path} has several that may hold pictures: {', '.join(candidates)}. Name one."
            )
        raise UserError(f"dataset.column: {self.path} has no column of bytes. There are: {', '.join(schema.names)}.")

    def _schema(self) -> Any:
        import pyarrow.parquet as pq

        if self._is_parquet:
            return pq.read_schema(self.path)
        with self._arrow() as (schema, _):
            return schema

    def _values(self, column: str) -> Iterator[Any]:
        """Yield the column as arrays of pyarrow."""
        import pyarrow.parquet as pq

        if self._is_parquet:
            with pq.ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False) as file:
                for batch in file.iter_batches(_ROWS, columns=[column], use_threads=False):
                    yield batch.column(0)
            return
        with self._arrow() as (_, batches):
            for batch in batches:
                yield batch.column(column)

    @contextmanager
    def _arrow(self) -> Iterator[tuple[Any, Iterator[Any]]]:
        """Open a file in arrow's file format or stream format; yield its schema and its batches."""
        import pyarrow as pa

        with pa.memory_map(str(self.path)) as file:
            if file.read(6) == b"ARROW1":
                reader = pa.ipc.open_file(file)
                yield reader.schema, map(reader.get_batch, range(reader.num_record_batches))
            else:
                file.seek(0)
                reader = pa.ipc.open_stream(file)
                yield reader.schema, iter(reader)

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix == ".parquet"

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            import pyarrow as pa
        except ImportError:
            raise UserError("dataset=parquet needs pyarrow: pip install 'sslcli[parquet]'") from None
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"dataset.path: {self.path} cannot be read ({first_line(error)}). Fetch it again."
            ) from None


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))
