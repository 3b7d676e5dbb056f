"""The columns of a comparison: settings that differ, and numbers with direction, protocol and best baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sslcli.report.differences import incomparable, incomparable_losses, text
from sslcli.run_dir.formatting import is_number
from sslcli.run_dir.measurements import best_baseline, gain, number, with_error
from sslcli.run_dir.readings import Reading
from sslcli.run_dir.records import Record

_DIRECTIONS = {True: "higher is better", False: "lower is better", None: "neither direction is better"}
_TRAINING = "mean over the steps to the last log line"


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    order: str  # the value to sort by; empty for none
    mark: str = ""  # whether it is the best of its column
    baseline: str = ""  # the best baseline, and the gain over it
    protocol: str = ""  # where it is not that of all cells


@dataclass(frozen=True)
class Column:
    """A setting or a number, of every run."""

    name: str
    cells: Sequence[Cell]
    is_result: bool = True
    direction: str = ""
    protocol: str = ""
    unranked: str = ""  # why its values do not compare


def columns_of(records: Sequence[Record], settings: Mapping[str, Sequence[Any]]) -> list[Column]:
    """Return headlines and loss, then the settings that differ (the values by their key), then all other numbers."""
    first = list(dict.fromkeys(record.headline for record in records if record.headline))
    others = dict.fromkeys(name for record in records for name in record.metrics if name not in first)
    loss = [_loss(records)] if any(record.lines for record in records) else []
    return [
        *(_metric(name, records) for name in first),
        *loss,
        *(Column(key, [*map(_setting, values)], is_result=False) for key, values in settings.items()),
        *(_metric(name, records) for name in others),
    ]


def _metric(name: str, records: Sequence[Record]) -> Column:
    """Return the column of a metric, ranked if all its values were measured alike."""
    readings = [record.metrics.get(name) for record in records]
    found = [reading for reading in readings if reading is not None]
    protocols = {reading.protocol for reading in found}
    higher = {reading.higher_is_better for reading in found}
    direction = higher.pop() if len(higher) == 1 else None
    reason = incomparable(name, protocols, [record.settings for record in records if name in record.metrics])
    marks = [""] * len(readings) if reason or direction is None else best(readings, higher_is_better=direction)
    one = protocols.pop() if len(protocols) == 1 else ""
    return Column(name, _values(readings, marks, one), True, _DIRECTIONS[direction], one, reason)


def _values(readings: Sequence[Reading | None], marks: Sequence[str], protocol: str) -> list[Cell]:
    """Return the cells of a column; each names its protocol, unless it is the column's."""
    return [
        Cell("–", "")
        if reading is None
        else Cell(
            with_error(reading),
            repr(float(reading.value)),
            mark,
            _baseline(reading),
            "" if reading.protocol == protocol else reading.protocol,
        )
        for reading, mark in zip(readings, marks)
    ]


def _baseline(reading: Reading) -> str:
    name = best_baseline(reading.baselines, reading.higher_is_better)
    if name is None:
        return ""
    shown = number(reading.baselines[name], reading.unit, reading.standard_error)
    return f"best baseline {name} {shown}, difference {gain(reading, name)}"


def _loss(records: Sequence[Record]) -> Column:
    """Return the column of the last logged loss, beside its chance level."""
    lines = [next((line for line in reversed(r.lines) if is_number(line.get("loss"))), None) for r in records]
    readings = [None if line is None else _reading(line) for line in lines]
    reason = incomparable_losses([record.settings for record, line in zip(records, lines) if line])
    marks = [""] * len(readings) if reason else best(readings, higher_is_better=False)
    return Column("loss", _values(readings, marks, _TRAINING), True, _DIRECTIONS[False], _TRAINING, reason)


def _reading(line: Mapping[str, Any]) -> Reading:
    chance = {"chance": line["chance"]} if is_number(line.get("chance")) else {}
    return Reading(line["loss"], _TRAINING, higher_is_better=False, baselines=chance)


def best(readings: Sequence[Reading | None], *, higher_is_better: bool) -> list[str]:
    """Return a mark for the best of the values: of one alone, or of several within two standard errors."""
    sign = 1 if higher_is_better else -1
    finite = [reading for reading in readings if reading is not None and math.isfinite(reading.value)]
    if len(finite) < 2:
        return [""] * len(readings)
    top = max(finite, key=lambda reading: sign * reading.value)
    level = [
        reading is not None
        and sign * (top.value - reading.value) <= 2 * math.hypot(top.standard_error or 0, reading.standard_error or 0)
        for reading in readings
    ]
    mark = "best" if sum(level) == 1 else "among the best"
    return [mark if is_level else "" for is_level in level]


def _setting(value: Any) -> Cell:
    return Cell(text(value), repr(float(value)) if is_number(value) else text(value))
