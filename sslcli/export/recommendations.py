"""Export lists of recommended items: the first k of every user, or of everybody in a file of histories."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sslcli.components import build_objective
from sslcli.config.paths import expand
from sslcli.config.ranges import Count
from sslcli.data.interactions.samples import padded
from sslcli.errors import UserError
from sslcli.export.base import TOLERANCE, Checked, Different, Format, Lines, Source
from sslcli.export.tables import Column, CsvTable, ParquetTable, Table
from sslcli.export.users_items import Users, ids_of, item_vectors, recommends
from sslcli.graph import Lists
from sslcli.pretrained.recommend import best, ranked, scores_of
from sslcli.run_dir.console import Console

_COMPARED = 64  # users whose list is computed a second time for the check
_NAMES = {"users": "user", "ranks": "rank", "items": "item", "scores": "score"}


@dataclass
class _Asked:
    """Those who get a list: their names [N], vectors (N, D), and the items that they have seen."""

    names: Sequence[str]
    vectors: Tensor
    seen: Lists


class Recommendations(Format):
    """Up to k rows for each user: user, rank (from 1), item and score, the user and the item by their raw ids.

    All items are ranked but those that the user has seen, as ``probe=ranking`` does; of equal scores the item comes
    first that is first in the run's ids.

    Args:
        k: the length of a list.
        histories: a CSV file with the columns user and item, the oldest item of a user first, instead of the users of
            the run, who need not be among them; for encoders of histories.
        table: ``csv``, or ``parquet``, which needs the extra of that name.
    """

    name = "recommendations"
    reads_data = True

    def __init__(
        self, *, k: Count = 10, histories: str | None = None, table: Literal["csv", "parquet"] = "csv"
    ) -> None:
        self.k, self.histories = k, histories
        self.table: Table = CsvTable(*_NAMES.values()) if table == "csv" else ParquetTable()
        self.suffix, self.begins = self.table.suffix, self.table.begins

    def write(self, source: Source, path: Path) -> None:
        if not recommends(source):
            raise UserError("format=recommendations: this run has no users and items. Use format=embeddings.")
        self.table.needs()
        self._notes: list[str] = []
        asked = self._asked_of(source) if self.histories is None else self._strangers(source, self.histories)
        ids, items = ids_of(source), item_vectors(source)
        similarity = build_objective(source.config, source.model.encoder).similarity
        scores = scores_of(asked.vectors, items, similarity)
        longest = (max(map(len, asked.names), default=0), max(map(len, ids.items)))
        self._columns = {
            "user": Column("text", longest[0]),
            "rank": Column("int64"),
            "item": Column("text", longest[1]),
            "score": Column("float32"),
        }
        total = int((len(items) - asked.seen.lengths).clamp(max=self.k).sum())
        queries = torch.arange(len(asked.names))
        console = Console()
        console.start_bar(len(queries), 0, 1)
        try:
            with self.table.writer(path, total, self._columns) as write:
                for part, table in ranked(scores, asked.seen, queries, len(items)):
                    rows, found = best(table, self.k)
                    first = torch.searchsorted(rows, rows)
                    write(
                        {
                            "user": [asked.names[i] for i in part[rows].tolist()],
                            "rank": (torch.arange(len(rows)) - first + 1).numpy(),
                            "item": [ids.items[i] for i in found.tolist()],
                            "score": table[rows, found].numpy(),
                        }
                    )
                    console.advance(len(part))
        finally:
            console.stop_bar()
        self._asked, self._total, self._items, self._similarity = asked, total, items, similarity
        self._number_of = ids.number_of_item

    def _asked_of(self, source: Source) -> _Asked:
        """Return the users of the run, with what they have seen."""
        chosen, train = source.data()
        users, ids = Users(source, train, chosen.workers), ids_of(source)
        rows = torch.arange(len(users.numbers))
        place, items = users.seen.pairs(users.numbers)
        self._again = users.vectors
        names = [ids.users[i] for i in users.numbers.tolist()]
        return _Asked(names, users.vectors(rows), Lists.of(place, items, len(rows)))

    def _strangers(self, source: Source, histories: str) -> _Asked:
        """Return everybody in a file of histories.

        Raises:
            UserError: the encoder reads no histories, or the file has none.
        """
        column = source.field
        if column.kind != "tokens":
            raise UserError(
                "format.histories: this run's encoder knows its own users only, as it reads their ids. Train one with "
                "encoder=history, or leave this out."
            )
        ids = ids_of(source)
        known, items, unknown = [], [], 0
        read = dict(_histories(expand(histories)))
        for name, history in read.items():
            numbers = [ids.number_of_item[item] for item in history if item in ids.number_of_item]
            unknown += len(history) - len(numbers)
            if numbers:
                known.append(name)
                items.append(numbers)
        if not known:
            raise UserError(f"format.histories: no item in {histories} is one of the run's, such as {ids.items[0]}.")
        self._notes += [f"{unknown:,} rows with items that training never saw are left out"] if unknown else []
        lost = len(read) - len(known)
        self._notes += [f"{lost:,} users without any other item get no list"] if lost else []
        raw = padded(Lists.of_rows(items), torch.arange(len(items)), column, len(ids.users))

        def vectors(rows: Tensor) -> Tensor:
            return torch.cat([source.features({source.model.views.field: raw[part]}) for part in rows.split(512)])

        self._again = vectors
        owner = torch.tensor([i for i, row in enumerate(items) for _ in {*row}])
        seen = Lists.of(owner, torch.tensor([item for row in items for item in {*row}]), len(items))
        return _Asked(known, vectors(torch.arange(len(items))), seen)

    def lines(self, source: Source, path: Path) -> Lines:
        return self.table.lines(path, self._columns, _NAMES)

    def check(self, source: Source, path: Path) -> Checked:
        lengths = (len(self._items) - self._asked.seen.lengths).clamp(max=self.k)
        starts = lengths.cumsum(0) - lengths
        count = min(_COMPARED, len(lengths))
        chosen = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0))[:count].sort().values
        places = torch.cat([torch.arange(int(starts[i]), int(starts[i] + lengths[i])) for i in chosen])
        total, rows = self.table.read(path, places.numpy(), self._columns)
        if total != self._total:
            raise Different(f"{path} has {total} rows for {self._total}")
        scores = scores_of(self._again(chosen), self._items, self._similarity)(torch.arange(count))
        scores[self._asked.seen.pairs(chosen)] = -torch.inf
        worst = 0.0
        begin = 0
        for row, i in enumerate(chosen.tolist()):
            end = begin + int(lengths[i])
            items = [self._number_of[item] for item in rows["item"][begin:end]]
            expected = scores[row].topk(end - begin).values
            largest = float(expected.abs().max().clamp(min=1e-12)) if len(items) else 1.0
            ranks = np.arange(1, end - begin + 1)
            fits = {*rows["user"][begin:end]} <= {self._asked.names[i]} and np.array_equal(
                rows["rank"][begin:end], ranks
            )
            if not fits or len({*items}) != len(items):
                raise Different(f"{path} has other rows for the user {self._asked.names[i]}")
            for found in (scores[row, items], torch.from_numpy(np.array(rows["score"][begin:end], np.float32))):
                worst = max(worst, float((found - expected).abs().max()) / largest if len(items) else 0.0)
            begin = end
        if not worst <= TOLERANCE:
            raise Different(f"scores differ by {worst:.1e}, relative to the largest")
        equal = f"the lists of {count} users, computed again, are equal, maximum relative difference {worst:.0e}"
        return Checked(len(lengths), [], [], "; ".join([equal, *self._notes]), of="users")


def _histories(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each user in a CSV file with the items, in the order of the rows.

    Raises:
        UserError: the file cannot be read, or lacks a column.
    """
    found: dict[str, list[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in ("user", "item") if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"format.histories: {path} has no column '{missing[0]}'. It needs user and item.")
            for row in reader:
                found.setdefault(row["user"] or "", []).append(row["item"] or "")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"format.histories: {path} cannot be read ({error})") from None
    yield from found.items()
