"""The page that compares runs: a table of the settings that differ and the results, and charts of all curves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli.report import charts
from sslcli.report.figures import variable
from sslcli.report.page import Chart, title
from sslcli.report.render import render
from sslcli.run_dir.formatting import is_number
from sslcli.run_dir.measurements import best_baseline, gain, number, with_error
from sslcli.run_dir.records import Record, choice

_NO_SETTINGS = (
    "run_dir",
    "resume",
    "preview",
    "plugins",
    "log",
    "logger",
    "checkpoint",
)  # groups that do not change results
_POINTS = 200  # points of each curve
_MOST_CHARTS = 12
_LOOP = ("step", "epoch", "lr", "samples_per_second", "data_wait")
_COLUMN = 118  # smallest width of a column in pixels


@dataclass(frozen=True)
class Cell:
    """A cell of the table."""

    text: str
    order: str  # the value to sort by
    baseline: str = ""  # a second line with the value of a baseline, and the gain over the best one


@dataclass(frozen=True)
class Line:
    """A row of the table: one run."""

    name: str
    link: str | None  # path of the run's own page, relative to the comparison
    colour: str
    cells: Sequence[Cell]


def comparison_page(records: Sequence[Record], folder: Path) -> str:
    """Return the page as HTML without external files.

    Args:
        records: the runs.
        folder: the folder of the page, for links to the pages of the runs.
    """
    settings = differing([record.settings for record in records])
    metrics = list(dict.fromkeys(name for record in records for name in record.metrics))
    columns = [*settings, *metrics]
    values = list(zip(*settings.values())) or [()] * len(records)
    colours = [variable(colour) for colour in charts.class_colours(len(records))]
    names = _names([record.path for record in records])
    lines = [
        Line(name, _link(record, folder), colour, [*map(_setting, chosen), *_metrics(record, metrics)])
        for name, record, colour, chosen in zip(names, records, colours, values)
    ]
    same = {title(record) for record in records}
    return render(
        "comparison.html",
        title=same.pop() if len(same) == 1 else f"{len(records)} runs",
        lines=lines,
        settings=list(settings),
        metrics=metrics,
        columns=columns,
        stacked_below=f"{_COLUMN * (len(columns) + 1) + 90}px",
        protocols=_protocols(records),
        charts=list(_curves(records, names)),
        unfinished=[name for name, record in zip(names, records) if record.result is None],
    )


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys that differ between runs, as they are written on the command line, with their values.

    If runs use different options of a config group, the option replaces those of its keys that not all runs have.
    The seed comes last.
    """
    keys = dict.fromkeys(key for run in settings for key in run)
    found: dict[str, list[Any]] = {}
    for key in sorted(keys, key=lambda key: key == "seed"):
        group, _, name = key.partition(".")
        if group in _NO_SETTINGS or (name != "_target_" and name.endswith("_target_")):
            continue
        values = [run.get(key) for run in settings]
        if name == "_target_":
            key, values = group, [choice(run, group) for run in settings]
        elif group in found and not all(key in run for run in settings):
            continue
        if len({_text(value) for value in values}) > 1:
            found[key] = values
    return found


def _text(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the runs' folders, without their common parent."""
    if len(paths) < 2:
        return [path.name for path in paths]
    common = Path(os.path.commonpath([path.resolve() for path in paths]))
    return [str(path.resolve().relative_to(common)) for path in paths]


def _link(record: Record, folder: Path) -> str | None:
    page = record.path / "report.html"
    return os.path.relpath(page.resolve(), folder.resolve()) if page.is_file() else None


def _setting(value: Any) -> Cell:
    return Cell(_text(value), repr(float(value)) if is_number(value) else _text(value))


def _metrics(record: Record, names: Sequence[str]) -> Iterator[Cell]:
    """Yield a cell for each metric, with random weights or the chance level, and the gain over the best baseline."""
    for name in names:
        reading = record.metrics.get(name)
        if reading is None:
            yield Cell("–", "")
            continue
        known = next((c for c in ("random_init", "chance") if c in reading.baselines), None)
        best = best_baseline(reading.baselines, reading.higher_is_better)
        shown = number(reading.baselines[known], reading.unit, reading.standard_error) if known else ""
        notes = [f"{known} {shown}" if known else "", f"{gain(reading, best)} against {best}" if best else ""]
        yield Cell(with_error(reading), repr(float(reading.value)), "; ".join(filter(None, notes)))


def _protocols(records: Sequence[Record]) -> dict[str, list[str]]:
    """Return the different protocols of each metric; the values are comparable if there is only one."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for name, reading in record.metrics.items():
            found.setdefault(name, {})[reading.protocol] = None
    return {name: list(protocols) for name, protocols in found.items()}


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
