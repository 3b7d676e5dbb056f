"""Pictures in tables: parquet files, and the folders that Hugging Face's ``datasets`` writes, parquet or arrow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sslcli.data.base import Dataset, Subset, with_held_out
from sslcli.data.pictures.base import Crop, Pictures
from sslcli.data.pictures.byte_ranges import ByteRanges, Part
from sslcli.data.pictures.classes import labels_of
from sslcli.data.pictures.decode import BadPicture
from sslcli.data.pictures.file_patterns import find
from sslcli.data.pictures.table import Table
from sslcli.data.pictures.table_index import index_tables
from sslcli.errors import UserError

SUFFIXES = (".parquet", ".arrow")
_SPLITS = {"train": "train", "test": "test", **dict.fromkeys(("validation", "valid", "val", "dev"), "validation")}


def parquet(
    *,
    path: str,
    column: str | None = None,
    label: str | None = None,
    size: int = 64,
    crop: Crop = "device",
    cache_dir: str | None = None,
    holdout: float | None = None,
) -> Dataset:
    """Every row of some tables, by the tables' names and then as they lie.

    Tables named after a split (``test-00000-of-00001.parquet``, ``validation/data-00000-of-00001.arrow``) are kept out
    of training: probes query the test split, or without labels there the validation split.

    Args:
        path: a file, a folder, a pattern or a list in braces.
        column: holds the pictures; null finds it.
        label: holds the classes; null takes ``label`` if there is such a column.
        size: pixels a side, as of ``images``.
        crop: where training crops are cut, as of ``images``.
        cache_dir: where the pictures of compressed tables are kept, unpacked; null is the user's cache.
        holdout: a fraction of train that probes query instead of a split; null without one is 0.2 with labels, else
            0.05.
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
    whole = Pictures(rows, size, crop)
    if not test:
        return with_held_out(whole, None, holdout)
    kept = Subset(whole, torch.arange(int((rows.number < len(train)).sum())))
    held_out = Subset(whole, torch.arange(len(kept), len(whole)))
    return with_held_out(kept, held_out, holdout)


class Rows(ByteRanges):
    """The pictures of some tables."""

    def __init__(self, files: Sequence[Path], parts: Sequence[Part], tables: Sequence[Path]) -> None:
        super().__init__(files, parts, [table.name for table in tables])
        self.tables = list(tables)

    def source(self, i: int) -> bytes:
        """The i-th picture's file content.

        Raises:
            BadPicture: it cannot be read in whole, or there is none.
        """
        if not self.size[i]:
            raise BadPicture("no bytes in this row")
        return super().source(i)

    def where(self, i: int) -> str:
        """The table and the row."""
        number = int(self.number[i])
        return f"{self.tables[number]}, row {i - int(np.searchsorted(self.number, number))}"


def _splits(path: str, column: str | None, label: str | None) -> tuple[list[Path], list[Path]]:
    """The tables to train on and those to test on. What is of no split that we know is trained on."""
    parts: dict[str, list[Path]] = {"train": [], "test": [], "validation": []}
    tables = [table for table in find(path, SUFFIXES) if not table.name.startswith(("cache-", "tmp"))]
    root = Path(path).expanduser()
    for table in tables:
        parts[split_of(table.relative_to(root) if root.is_dir() else Path(table.name))].append(table)
    if not parts["train"]:
        return tables, []
    if parts["validation"] and not any(_has_labels(Table(table, column, label)) for table in parts["test"]):
        return parts["train"], parts["validation"]
    return parts["train"], parts["test"]


def _has_labels(table: Table) -> bool:
    classes = table.classes()
    return classes is not None and labels_of(classes) is not None


def split_of(table: Path) -> str:
    """The split that a table's name says, or else its folder's, of a path from the folder that was given."""
    for name in (table.stem, table.parent.name):
        words = [_SPLITS[word] for word in re.split(r"[-_. ]", name.lower()) if word in _SPLITS]
        if words:
            return words[-1]
    return "train"
