"""Export the features of every sample, or of every user and item, for search, clustering and other tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sslcli.config.choices import DatasetChoice
from sslcli.data.base import Dataset
from sslcli.data.classes import class_counts, class_name
from sslcli.data.corrupt import READABLE, CorruptFlagged
from sslcli.data.dataloading import in_pieces
from sslcli.errors import UserError
from sslcli.export.base import TOLERANCE, Checked, Different, Format, Lines, Source
from sslcli.export.tables import Column, Columns, NumpyTable, ParquetTable, Part, Rows, Table
from sslcli.export.users_items import nodes, recommends
from sslcli.run_dir.console import Console

_COMPARED = 64  # samples of each part that are embedded a second time for the check


class Embeddings(Format):
    """A row for each sample: path, label (-1 for none), class (the label's name), split and vector, in float32.

    The rows are in the order of the data, the training part before the held-out part. A sample that cannot be read
    has a row with a vector of NaN. Of a recommender there is a row for each user and each item: kind, id and vector.

    Args:
        split: the part of the data; users and items are of no part.
        table: ``parquet`` needs the extra of that name; ``numpy`` is one structured array that can be memory-mapped.
    """

    name = "embeddings"
    reads_data = True

    def __init__(
        self, *, split: Literal["both", "train", "held_out"] = "both", table: Literal["parquet", "numpy"] = "parquet"
    ) -> None:
        self.split = split
        self.table: Table = {"parquet": ParquetTable, "numpy": NumpyTable}[table]()
        self.suffix, self.begins = self.table.suffix, self.table.begins

    def write(self, source: Source, path: Path) -> None:
        self.table.needs()
        chosen, train = source.data()
        _check_size(train, source, chosen)
        self._parts = self._chosen(source, train, chosen.workers)
        self._unreadable: list[str] = []
        total = sum(map(len, self._parts))
        console = Console()
        console.start_bar(total, 0, 1)
        try:
            each = [part.columns() for part in self._parts]  # which looks at the name of every sample
            self._columns = {name: max((of[name] for of in each), key=lambda column: column.width) for name in each[0]}
            with self.table.writer(path, total, self._columns) as write:
                for part in self._parts:
                    for rows, unreadable in part.pieces():
                        write(rows)
                        self._unreadable += unreadable
                        console.advance(len(rows["vector"]))
        finally:
            console.stop_bar()

    def _chosen(self, source: Source, train: Dataset, workers: int | None) -> Sequence[Part]:
        """Return the requested parts of the data.

        Raises:
            UserError: the data have no such part.
        """
        parts = {"train": train, "held_out": train.held_out}
        if self.split != "both" and (parts[self.split] is None or recommends(source)):
            raise UserError(f"format.split={self.split}: this data has no such part. Use format.split=both")
        if recommends(source):
            return nodes(source, train, workers)
        return [
            _Samples(source, n, CorruptFlagged(d), workers)
            for n, d in parts.items()
            if d is not None and self.split in (n, "both")
        ]

    def lines(self, source: Source, path: Path) -> Lines:
        return self.table.lines(path, self._columns, self._parts[0].names)

    def check(self, source: Source, path: Path) -> Checked:
        total, of = sum(map(len, self._parts)), self._parts[0].of
        worst, start, compared = 0.0, 0, 0
        for part in self._parts:  # embed some of its samples again, in another batch
            chosen = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:_COMPARED].sort().values
            ours = part.again(chosen)
            count, theirs = self.table.read(path, start + chosen.numpy(), self._columns)
            if count != total:
                raise Different(f"{path} has {count} rows for {total} {of}")
            for name, column in self._columns.items():
                if column.kind != "float32" and list(theirs[name]) != list(ours[name]):
                    raise Different(f"{path} has other values in the column {name}")
            if not np.array_equal(np.isnan(theirs["vector"]), np.isnan(ours["vector"])):
                raise Different(f"{path} has other unreadable samples")
            largest = np.nanmax(np.abs(ours["vector"]), initial=1e-12)
            worst = max(worst, float(np.nanmax(np.abs(theirs["vector"] - ours["vector"]), initial=0.0) / largest))
            start, compared = start + len(part), compared + len(chosen)
        if not worst <= TOLERANCE:
            raise Different(f"vectors differ by {worst:.1e}, relative to the largest")
        return Checked(
            total - len(self._unreadable),
            self._unreadable,
            [],
            f"{compared} of them, embedded again, are equal, maximum relative difference {worst:.0e}",
            of=of,
        )


@dataclass
class _Samples:
    """The samples of a part of the data."""

    source: Source
    name: str
    dataset: CorruptFlagged
    workers: int | None
    of: str = "samples"
    names: Mapping[str, str] = field(
        default_factory=lambda: {"paths": "path", "labels": "label", "classes": "class", "vectors": "vector"}
    )

    def __len__(self) -> int:
        return len(self.dataset)

    def columns(self) -> Columns:
        """Return the columns of the table."""
        longest = max(len(self.dataset.name_of(i)) for i in range(len(self.dataset)))
        return {
            "path": Column("text", longest),
            "label": Column("int64"),
            "class": Column("text", self._longest_class()),
            "split": Column("text", len("held_out")),
            "vector": Column("float32", self.source.model.dim),
        }

    def _longest_class(self) -> int:
        lengths = [len(name) for name in class_counts(self.dataset)]
        several = self.dataset.labels is not None and self.dataset.labels.dim() == 2
        return sum(lengths) + 2 * len(lengths) if several else max(lengths, default=0)

    @torch.inference_mode()
    def pieces(self) -> Iterator[tuple[Rows, list[str]]]:
        """Yield rows, in order, with the names of those samples that cannot be read."""
        start = 0
        for columns, _ in in_pieces(self.dataset, torch.arange(len(self.dataset)), self.workers):
            index = torch.arange(start, start + len(columns[READABLE]))
            rows = self._rows(index, columns)
            yield rows, [name for name, fine in zip(rows["path"], columns[READABLE].tolist()) if not fine]
            start += len(index)

    @torch.inference_mode()
    def again(self, index: Tensor) -> Rows:
        """Return the rows at ``index`` (B,)."""
        return self._rows(index, self.dataset.fetch(index))

    def _rows(self, index: Tensor, columns: Mapping[str, Tensor]) -> Rows:
        known, names = self.dataset.labels, self.dataset.classes
        some = None if known is None else known[index]
        labels = np.full(len(index), -1) if some is None or some.dim() == 2 else some.numpy()
        classes = [class_name(names, label) for label in labels.tolist()]
        if some is not None and some.dim() == 2:
            classes = [", ".join(class_name(names, label) for label in has.nonzero()[:, 0].tolist()) for has in some]
        return {
            "path": [self.dataset.name_of(i) for i in index.tolist()],
            "label": labels,
            "class": classes,
            "split": [self.name] * len(index),
            "vector": _embedded(self.source, columns),
        }


def _embedded(source: Source, columns: Mapping[str, Tensor]) -> np.ndarray:
    """Return the features (B, D), float32; NaN for samples that are not readable."""
    vectors = source.features(columns)
    return torch.where(columns[READABLE][:, None], vectors, torch.nan).numpy()


def _check_size(dataset: Dataset, source: Source, chosen: DatasetChoice) -> None:
    """Raise UserError for pictures that are reduced to fewer pixels than the encoder reads."""
    ours, theirs = source.field, dataset.spec[source.model.views.field]
    if ours.kind == "image" and "size" in chosen.node and theirs.shape[1] < ours.shape[1]:
        raise UserError(
            f"dataset.size={chosen.node['size']}: this encoder reads {ours.shape[1]} pixels a side, and pictures that "
            f"are made smaller before lose detail. Set dataset.size={ours.shape[1]}"
        )
