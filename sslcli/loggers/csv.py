"""``metrics.csv``: the lines of ``metrics.jsonl`` as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sslcli.loggers.base import Logger
from sslcli.run_dir import inside
from sslcli.run_dir.metrics_jsonl import read_lines

NAME = "metrics.csv"


class CSV(Logger):
    """One row per line and one column per key, in the order of their first occurrence.

    The table is rewritten from ``metrics.jsonl`` whenever a session starts, so it has every step once even if the run
    was killed, was resumed, or had no CSV logger at first. A key that first occurs later becomes a new column, empty in
    the earlier rows.
    """

    def __init__(self) -> None:
        self._columns: list[str] = []
        self._run_dir = Path()

    def start(self, settings: Mapping[str, Any], run_dir: Path, step: int) -> None:
        self._run_dir = run_dir
        self._rewrite(list(read_lines(run_dir)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if not set(values) <= set(self._columns):
            before = (inside.read(self._run_dir, NAME) or b"").decode()
            self._rewrite([*csv.DictReader(io.StringIO(before, newline="")), values])
            return
        inside.append(self._run_dir, NAME, _table(self._columns, [values], header=False).encode())

    def _rewrite(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._columns = list(dict.fromkeys(key for row in rows for key in row))
        inside.write(self._run_dir, NAME, lambda file: file.write(_table(self._columns, rows).encode()))


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, header: bool = True) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
