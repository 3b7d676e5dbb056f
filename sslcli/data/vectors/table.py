"""Reads a table from a file of any kind, or from scikit-learn, as columns of one length."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sslcli.data.regular_files import open_regular
from sslcli.data.vectors.column import Column, cleaned
from sslcli.data.vectors.csv_file import read_csv
from sslcli.errors import UserError, one_line, suggest
from sslcli.run_dir.formatting import first_line

_KINDS = ("", "token", "token_seq", "float")  # of typed headers


@dataclass(frozen=True)
class Table:
    """Columns with different names and one length.

    Args:
        source: the file, for messages.
        columns: the columns by name, in the order of the file.
        left_out: what of the file is no column, in words.
        missing: the user's own words for no value.
    """

    source: str
    columns: Mapping[str, Column]
    left_out: list[str] = field(default_factory=list)
    missing: Sequence[str] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).values)

    def column(self, name: str, key: str) -> Column:
        """Return a column by its name.

        Raises:
            UserError: there is none; the message begins with the config path ``key``.
        """
        if name not in self.columns:
            raise UserError(f"{key}: {self.source} has no column '{name}'. {suggest(name, self.columns)}")
        return self.columns[name]


def read_table(path: Path, missing: Sequence[str], ignore: Sequence[str] = ()) -> Table:
    """Read a table by the suffix of its file.

    Args:
        path: the file.
        missing: words that mean a missing value, beside the usual ones.
        ignore: columns that nobody reads, which may be of kinds that no table can have, such as dates.

    Raises:
        UserError: the suffix is unknown, or the file cannot be read.
    """
    kinds: Mapping[str, Callable[[Path, Collection[str]], tuple[list[Column], list[str]]]] = {
        ".csv": read_csv,
        ".tsv": read_csv,
        ".user": _read_typed,
        ".item": _read_typed,
        ".parquet": partial(_read_parquet, ignore=ignore),
        ".npy": _read_npy,
        ".npz": _read_npz,
    }
    if path.suffix.lower() not in kinds:
        raise UserError(f"dataset.path: {path} must end in {', '.join(kinds)}; tables are told by their suffix.")
    try:
        with open_regular(path):
            pass
        columns, left_out = kinds[path.suffix.lower()](path, missing)
    except OSError as error:
        raise UserError(f"dataset.path: {path} cannot be read ({error.strerror or first_line(error)}).") from None
    return _checked(str(path), columns, left_out, missing)


def read_scikit(name: str) -> Table:
    """Return a small data set that comes with scikit-learn, whose classes are the column ``label``.

    Raises:
        UserError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError:
        raise UserError(f"dataset.name={name} needs scikit-learn: pip install scikit-learn") from None
    found = getattr(datasets, f"load_{name}")()
    classes = np.array([str(found.target_names[number]) for number in found.target], object)
    values = {str(column): found.data[:, i] for i, column in enumerate(found.feature_names)}
    return _checked(name, [Column(key, each, _row_of(name)) for key, each in {**values, "label": classes}.items()], [])


def _checked(source: str, columns: list[Column], left_out: list[str], missing: Sequence[str] = ()) -> Table:
    table = Table(source, {column.name: column for column in columns}, left_out, missing)
    if not columns or not len(table):
        raise UserError(f"dataset.path: {source} has no {'rows' if columns else 'columns'}.")
    return table


def _read_typed(path: Path, missing: Collection[str]) -> tuple[list[Column], list[str]]:
    """Read RecBole's ``.user`` or ``.item``, in whose header a column is ``age:float`` or ``genres:token_seq``."""
    columns, left_out = read_csv(path, missing)
    names = [column.name.partition(":") for column in columns]
    for name, _, kind in names:
        if kind not in _KINDS:
            raise UserError(
                f"dataset.path: {path}, line 1: the column '{one_line(name)}' is of the type '{one_line(kind)}', and "
                f"these are read: {', '.join(_KINDS[1:])}. Take it out, or correct it."
            )
    if len({name for name, _, _ in names}) < len(names):
        raise UserError(f"dataset.path: {path}, line 1 has a column twice, with two types. Rename one of them.")
    return [replace(column, name=name, kind=kind) for column, (name, _, kind) in zip(columns, names)], left_out


def _read_parquet(path: Path, missing: Collection[str], ignore: Sequence[str]) -> tuple[list[Column], list[str]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("dataset.path: a parquet file needs pyarrow: pip install 'sslcli[parquet]'") from None
    try:
        table = pq.read_table(path, use_threads=False, partitioning=None)
    except pa.ArrowException as error:
        raise UserError(f"dataset.path: {path} cannot be read ({first_line(error)}). Fetch it again.") from None
    names = [name for name in table.column_names if not name.startswith("__index_level_")]  # pandas' row numbers
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"dataset.path: {path} has the column '{double}' twice. Rename one of them.")
    indices, row = len(table.column_names) - len(names), _row_of(str(path))
    columns = [
        Column(name, _nothing(len(table)) if name in ignore else _of_arrow(table[name], name, path, missing), row)
        for name in names
    ]
    return columns, [f"{indices} of pandas' row numbers"] if indices else []


def _nothing(count: int) -> np.ndarray:
    return np.full(count, np.nan)


def _of_arrow(values: Any, name: str, path: Path, missing: Collection[str]) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.types as kinds

    kind = values.type
    if kinds.is_dictionary(kind):
        values, kind = values.cast(kind.value_type), kind.value_type
    if kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind) or kinds.is_decimal(kind):
        plain = values.cast(pa.int8()) if kinds.is_boolean(kind) else values
        return np.asarray(plain.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_null(kind):
        return cleaned(values.to_pylist(), missing)
    raise UserError(
        f"dataset.path: the column '{name}' of {path} is {kind}, and columns are numbers or texts. Convert it, or set "
        f"dataset.ignore=[{name}]"
    )


def _read_npy(path: Path, missing: Collection[str]) -> tuple[list[Column], list[str]]:
    array = load_arrays(path)
    if array.dtype.names:
        return [
            Column(name, _of_array(array[name], path, missing), _row_of(str(path))) for name in array.dtype.names
        ], []
    if array.ndim != 2:
        raise UserError(f"dataset.path: {path} has the shape {list(array.shape)}, and a table has (rows, columns).")
    return _columns(array, "", path, missing), []


def _read_npz(path: Path, missing: Collection[str]) -> tuple[list[Column], list[str]]:
    arrays = load_arrays(path)
    with arrays:
        found = {str(name): array_of(arrays, name, path) for name in arrays.files}
    lengths = {name: array.shape[0] if array.ndim in (1, 2) else -1 for name, array in found.items()}
    if len(set(lengths.values())) > 1 or -1 in lengths.values():
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in found.items())
        raise UserError(
            f"dataset.path: the arrays in {path} must be (rows, columns) or (rows,) with equal rows: {shapes}"
        )
    tables = sum(array.ndim == 2 for array in found.values())
    columns: list[Column] = []
    for name, array in found.items():
        prefix = "" if tables == 1 else f"{name}."
        columns += (
            _columns(array, prefix, path, missing)
            if array.ndim == 2
            else [Column(name, _of_array(array, path, missing), _row_of(str(path)))]
        )
    return columns, []


def _columns(array: np.ndarray, prefix: str, path: Path, missing: Collection[str]) -> list[Column]:
    place = _row_of(str(path))
    return [Column(f"{prefix}{j}", _of_array(array[:, j], path, missing), place) for j in range(array.shape[1])]


def load_arrays(path: Path, key: str = "dataset.path") -> Any:
    """Open a file of NumPy's; one that holds Python objects is refused, because reading them runs code.

    Raises:
        UserError: it is, or it is no file of NumPy's; the message begins with the config path ``key``.
    """
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{key}: {path} cannot be read ({error.strerror or first_line(error)}).") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _refusal(path, error, key) from None


def array_of(arrays: Any, name: str, path: Path, key: str = "dataset.path") -> np.ndarray:
    """Read one array of an opened .npz file; raises what ``load_arrays`` raises."""
    try:
        return np.asarray(arrays[name])
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _refusal(path, error, key) from None


def _refusal(path: Path, error: Exception, key: str) -> UserError:
    if "allow_pickle" in str(error):
        return UserError(f"{key}: {path} holds Python objects, which are never unpickled. Save numbers or texts.")
    return UserError(f"{key}: {path} is no array of NumPy ({first_line(error)}).")


def _of_array(values: np.ndarray, path: Path, missing: Collection[str]) -> np.ndarray:
    if values.dtype.kind in "US":
        return cleaned([v.decode(errors="replace") if isinstance(v, bytes) else v for v in values.tolist()], missing)
    if values.dtype.kind not in "fiub":
        raise UserError(f"dataset.path: {path} has {values.dtype}, and columns are numbers or texts.")
    return values


def _row_of(source: str) -> Callable[[int], str]:
    return lambda i: f"{source}, row {i}"
