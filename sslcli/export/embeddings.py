"""Export the features of every sample of a data set, with path and label, for search, clustering and other tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from sslcli.export.tables import NumpyTable, ParquetTable, Rows, Table
from sslcli.run_dir.console import Console

_COMPARED = 64  # samples of each part that are embedded a second time for the check


class Embeddings(Format):
    """A row for each sample: path, label (-1 for none), class (the label's name), split and vector, in float32.

    The rows are in the order of the data, the training part before the held-out part. A sample that cannot be read
    has a row with a vector of NaN.

    Args:
        split: the part of the data.
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
        self._parts = self._chosen(source)
        self._unreadable: list[str] = []
        total = sum(len(part.dataset) for part in self._parts)
        console = Console()
        console.start_bar(total, 0, 1)
        try:
            longest = {
                "path": max(len(name) for part in self._parts for name in part.names()),
                "class": max(part.longest_class() for part in self._parts),
            }
            with self.table.writer(path, total, source.model.dim, longest) as write:
                for rows in self._rows(source):
                    write(rows)
                    console.advance(len(rows.path))
        finally:
            console.stop_bar()

    def _chosen(self, source: Source) -> list[_Part]:
        """Return the requested parts of the data.

        Raises:
            UserError: the data have no such part, or the encoder cannot read it.
        """
        chosen, train = source.data()
        self._workers = chosen.workers
        _check_size(train, source, chosen)
        parts = {"train": train, "held_out": train.held_out}
        if self.split != "both" and parts[self.split] is None:
            raise UserError(f"format.split={self.split}: this data has no such part. Use format.split=both")
        return [_Part(n, CorruptFlagged(d)) for n, d in parts.items() if d is not None and self.split in (n, "both")]

    @torch.inference_mode()
    def _rows(self, source: Source) -> Iterator[Rows]:
        for part in self._parts:
            start = 0
            for columns, _ in in_pieces(part.dataset, torch.arange(len(part.dataset)), self._workers):
                index = range(start, start + len(columns[READABLE]))
                rows = part.rows(index, _embedded(source, columns))
                self._unreadable += [name for name, fine in zip(rows.path, columns[READABLE].tolist()) if not fine]
                yield rows
                start = index.stop

    def lines(self, source: Source, path: Path) -> Lines:
        return self.table.lines(path)

    def check(self, source: Source, path: Path) -> Checked:
        total = sum(len(part.dataset) for part in self._parts)
        worst, start, compared = 0.0, 0, 0
        for part in self._parts:  # embed some of its samples again, in another batch
            chosen = (
                torch.randperm(len(part.dataset), generator=torch.Generator().manual_seed(0))[:_COMPARED].sort().values
            )
            with torch.inference_mode():
                ours = part.rows(chosen.tolist(), _embedded(source, part.dataset.fetch(chosen)))
            count, theirs = self.table.read(path, start + chosen.numpy())
            if count != total or (theirs.path, theirs.split) != (ours.path, ours.split):
                raise Different(f"{path} has {count} rows for {total} samples, or other paths")
            if not np.array_equal(theirs.label, ours.label) or theirs.classes != ours.classes:
                raise Different(f"{path} has other labels")
            if not np.array_equal(np.isnan(theirs.vector), np.isnan(ours.vector)):
                raise Different(f"{path} has other unreadable samples")
            largest = np.nanmax(np.abs(ours.vector), initial=1e-12)
            worst = max(worst, float(np.nanmax(np.abs(theirs.vector - ours.vector), initial=0.0) / largest))
            start, compared = start + len(part.dataset), compared + len(chosen)
        if not worst <= TOLERANCE:
            raise Different(f"vectors differ by {worst:.1e}, relative to the largest")
        return Checked(
            total - len(self._unreadable),
            self._unreadable,
            [],
            f"{compared} of them, embedded again, are equal, maximum relative difference {worst:.0e}",
            of="samples",
        )


@dataclass
class _Part:
    """A part of the data."""

    name: str
    dataset: CorruptFlagged

    def names(self) -> Iterator[str]:
        """Yield the name of every sample."""
        return (self.dataset.name_of(i) for i in range(len(self.dataset)))

    def longest_class(self) -> int:
        """Return the largest number of characters in the column ``class``."""
        lengths = [len(name) for name in class_counts(self.dataset)]
        several = self.dataset.labels is not None and self.dataset.labels.dim() == 2
        return sum(lengths) + 2 * len(lengths) if several else max(lengths, default=0)

    def rows(self, index: Sequence[int], vectors: np.ndarray) -> Rows:
        """Return the rows of the samples at ``index`` (B) with their ``vectors`` (B, D)."""
        known, names = self.dataset.labels, self.dataset.classes
        some = None if known is None else known[torch.tensor(list(index))]
        labels = np.full(len(index), -1) if some is None or some.dim() == 2 else some.numpy()
        classes = [class_name(names, label) for label in labels.tolist()]
        if some is not None and some.dim() == 2:
            classes = [", ".join(class_name(names, label) for label in has.nonzero()[:, 0].tolist()) for has in some]
        return Rows([self.dataset.name_of(i) for i in index], labels, classes, [self.name] * len(index), vectors)


def _embedded(source: Source, columns: Mapping[str, Tensor]) -> np.ndarray:
    """Return the features (B, D), float32; NaN for samples that are not readable."""
    raw = columns[source.model.views.field].to(source.compute.device)
    with torch.backends.cudnn.flags(allow_tf32=False):
        vectors = source.model(raw).float().cpu()
    return torch.where(columns[READABLE][:, None], vectors, torch.nan).numpy()


def _check_size(dataset: Dataset, source: Source, chosen: DatasetChoice) -> None:
    """Raise UserError for pictures that are reduced to fewer pixels than the encoder reads."""
    ours, theirs = source.field, dataset.spec[source.model.views.field]
    if ours.kind == "image" and "size" in chosen.node and theirs.shape[1] < ours.shape[1]:
        raise UserError(
            f"dataset.size={chosen.node['size']}: this encoder reads {ours.shape[1]} pixels a side, and pictures that "
            f"are made smaller before lose detail. Set dataset.size={ours.shape[1]}"
        )
