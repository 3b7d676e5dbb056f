"""Pictures in parquet files, and in the folders that Hugging Face's ``datasets`` writes as parquet or arrow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sslcli.config.ranges import Count, Side
from sslcli.data.base import Dataset, Subset, with_held_out
from sslcli.data.pictures.base import Crop, Pictures
from sslcli.data.pictures.byte_ranges import ByteRanges, Part
from sslcli.data.pictures.classes import labels_of
from sslcli.data.pictures.file_patterns import find
from sslcli.data.pictures.opening import BadPicture
from sslcli.data.pictures.table import Table
from sslcli.data.pictures.table_index import index_tables
from sslcli.data.split_names import TRAIN, split_in
from sslcli.errors import UserError

SUFFIXES = (".parquet", ".arrow")
_LEFTOVER = re.compile(r"cache-\w+\.arrow|tmp\w{8}(\.arrow)?")  # what ``datasets`` keeps beside a set that it maps


def parquet(
    *,
    path: str,
    column: str | None = None,
    label: str | None = None,
    size: Side = 64,
    channels: Count | None = None,
    crop: Crop = "device",
    cache_dir: str | None = None,
    holdout: float | None = None,
) -> Dataset:
    """Make a dataset of all rows of some tables, in the order of the tables' names and of the rows.

    Tables with the name of a split (``test-00000-of-00001.parquet``, ``validation/data-00000-of-00001.arrow``) are held
    out of training: probes use the test split, or the validation split if the test split has no labels.

    Args:
        path: a file, a folder, a pattern or a list in braces.
        column: the column of pictures; None finds it.
        label: the column of classes; None uses ``label`` if there is such a column.
        size: pixels a side, as in ``images``.
        channels: channels of each picture; None is three: red, green and blue.
        crop: where training crops are cut, as in ``images``.
        cache_dir: the folder for unpacked pictures of compressed tables; None is the user's cache.
        holdout: a fraction of train to hold out for probes instead of a split. None uses the split; if there is none,
            0.2 with labels, else 0.05.
    """
    if "://" in path:
        raise UserError(
            "dataset.path: tables are read from this machine; fetch them first: hf download NAME --local-dir DIR"
        )
    train, test = _splits(path, column, label)
    tables = train + test
    rows = Rows(*index_tables(tables, column, label, cache_dir), tables)
    if not rows.size.any():
        raise UserError(
            f"dataset.path: the {len(rows):,} rows of {path} hold no pictures. If they name files, give these to "
            "dataset=images, or write the set again with the pictures embedded."
        )
    pictures = Pictures(rows, size, crop, channels)
    if not test:
        return with_held_out(pictures, None, holdout)
    kept = Subset(pictures, torch.arange(int((rows.number < len(train)).sum())))
    held_out = Subset(pictures, torch.arange(len(kept), len(pictures)))
    return with_held_out(kept, held_out, holdout)


class Rows(ByteRanges):
    """The pictures in the rows of some tables."""

    def __init__(self, files: Sequence[Path], parts: Sequence[Part], tables: Sequence[Path]) -> None:
        super().__init__(files, parts, tables)
        self.tables = list(tables)
        empty = int((self.size == 0).sum())
        text = f"{len(self):,} rows of {len(tables):,} table{'s' * (len(tables) != 1)}"
        self.notes = (("rows", text + (f", {empty:,} of them without a picture" if empty else "")),)

    def source(self, i: int) -> bytes:
        """Read the content of the i-th picture.

        Raises:
            BadPicture: it cannot be read completely, or the row has no picture.
        """
        if not self.size[i]:
            raise BadPicture("no bytes in this row")
        return super().source(i)

    def where(self, i: int) -> str:
        """Return the path of the table and the number of the row."""
        number = int(self.number[i])
        return f"{self.tables[number]}, row {i - int(np.searchsorted(self.number, number))}"


def _splits(path: str, column: str | None, label: str | None) -> tuple[list[Path], list[Path]]:
    """Return the tables for training and those that are held out; tables without a known split are for training."""
    parts: dict[str, list[Path]] = {"train": [], "test": [], "validation": []}
    root = Path(path).expanduser()
    found = find(path, SUFFIXES)
    tables = [table for table in found if not (root.is_dir() and _LEFTOVER.fullmatch(table.name))]
    if not tables:
        raise UserError(f"dataset.path: {path} holds {found[0].name} and no other table. Give its path to read it.")
    for table in tables:
        parts[split_in(table.relative_to(root) if root.is_dir() else Path(table.name)) or TRAIN].append(table)
    if not parts["train"]:
        return tables, []
    if parts["validation"] and not any(_has_labels(Table(table, column, label)) for table in parts["test"]):
        return parts["train"], parts["validation"]
    return parts["train"], parts["test"]


def _has_labels(table: Table) -> bool:
    classes = table.classes()
    return classes is not None and labels_of([(classes, [])])[0] is not None
