"""The page that compares runs: a table of the settings that differ and the results, and charts of all curves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sslcli.report import charts
from sslcli.report.columns import Column, columns_of
from sslcli.report.differences import differing
from sslcli.report.figures import variable
from sslcli.report.page import Chart, title
from sslcli.report.render import render
from sslcli.run_dir.records import Record

_POINTS = 200  # points of each curve
_MOST_CHARTS = 12
_LOOP = ("step", "epoch", "lr", "samples_per_second", "data_wait")
_COLUMNS = 6  # of a table beside the run's name, so that it fits a width of 1280 pixels


@dataclass(frozen=True)
class Line:
    """One run."""

    name: str
    link: str | None  # path of the run's own page, relative to the comparison
    colour: str


def comparison_page(records: Sequence[Record], folder: Path, names: Sequence[str] = ()) -> str:
    """Return the page as HTML without external files.

    Args:
        records: the runs.
        folder: the folder of the page, for links to the pages of the runs.
        names: what the runs are called; by default as their folders.
    """
    settings = differing([record.settings for record in records])
    colours = [variable(colour) for colour in charts.class_colours(len(records))]
    names = names or _names([record.path for record in records])
    columns = columns_of(records, settings)
    same = {title(record) for record in records}
    return render(
        "comparison.html",
        title=same.pop() if len(same) == 1 else f"{len(records)} runs",
        lines=[Line(name, _link(record, folder), colour) for name, record, colour in zip(names, records, colours)],
        settings=list(settings),
        tables=[columns[start : start + _COLUMNS] for start in range(0, len(columns), _COLUMNS)],
        unranked=_unranked(columns),
        charts=list(_curves(records, names)),
        unfinished=[name for name, record in zip(names, records) if record.result is None],
    )


def _unranked(columns: Sequence[Column]) -> dict[str, list[str]]:
    """Return the names of the columns whose values do not compare, by the reason."""
    found: dict[str, list[str]] = {}
    for column in columns:
        if column.unranked:
            found.setdefault(column.unranked, []).append(column.name)
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the runs' folders, without their common parent."""
    if len(paths) < 2:
        return [path.name for path in paths]
    common = Path(os.path.commonpath([path.resolve() for path in paths]))
    return [str(path.resolve().relative_to(common)) for path in paths]


def _link(record: Record, folder: Path) -> str | None:
    page = record.path / "report.html"
    return os.path.relpath(page.resolve(), folder.resolve()) if page.is_file() else None


def _curves(records: Sequence[Record], names: Sequence[str]) -> Iterator[Chart]:
    """Yield a chart of the loss of all runs, and one for each other logged value of at least two runs."""
    keys = list(dict.fromkeys(key for record in records for line in record.lines for key in line))
    colours = charts.class_colours(len(records))
    made = 0
    for key in ["loss", *(key for key in keys if key != "loss")]:
        if key in _LOOP or key.endswith("chance") or made == _MOST_CHARTS:
            continue
        lines = []
        for k, record in enumerate(records):
            x, y = record.series(key)
            if x and (key == "loss" or (x, y) != record.series("loss")):
                lines.append(charts.Curve(*charts.thinned(x, y, _POINTS), colour=colours[k], group=f"run{k}"))
        if len(lines) < 2:
            continue
        made += 1
        identifier = f"curve-{re.sub(r'[^A-Za-z0-9]', '-', key)}"
        yield Chart(key, charts.curves(identifier, f"{key} over steps of {', '.join(names)}", lines))
