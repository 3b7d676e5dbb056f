"""The page of one run: the values for ``templates/run.html``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from sslcli.config.quoting import loading, override
from sslcli.data.classes import class_name
from sslcli.report import charts
from sslcli.report.figures import CONTROL, variable
from sslcli.report.maps import maps, singular_values
from sslcli.report.pictures import enlarged, neighbour_rows, rows_of, strip
from sslcli.report.render import render
from sslcli.report.visuals import Embedding, Neighbours, TextNeighbours, Visuals
from sslcli.run_dir.formatting import SHARE
from sslcli.run_dir.measurements import below_start, best_baseline, gain, number, with_error
from sslcli.run_dir.readings import Reading
from sslcli.run_dir.records import Record

_BOOKKEEPING = ("step", "epoch", "loss", "chance", "lr", "samples_per_second", "data_wait")
_LOG_LINES = 400  # last lines of the log; the whole log is in the run directory
SECTIONS = ("views", "masked", "neighbours", "texts", "guesses", "patches", "spectrum")  # which may be missing
_LEGEND = 10  # largest number of classes with a legend


@dataclass(frozen=True)
class Chart:
    """A chart with its title and a note."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A metric in a table."""

    name: str
    value: str
    baselines: Sequence[tuple[str, str]]
    protocol: str


def run_page(record: Record, identity: Mapping[str, Any], visuals: Visuals | None, note: str = "") -> str:
    """Return the page of a run as HTML without external files.

    Args:
        record: the content of the run directory.
        identity: version and environment from the run's checkpoint; empty if there is none yet.
        visuals: pictures and embedding of the model; None if they cannot be computed.
        note: the reason for that, shown on the page.
    """
    shown: dict[str, Any] = dict.fromkeys(SECTIONS) | {"maps": []}
    if visuals is not None:
        shown = {
            "views": strip(visuals.views) if visuals.views else None,
            "masked": visuals.masked and {"strip": strip(visuals.masked.pictures), "of": visuals.masked},
            "neighbours": visuals.neighbours and _neighbours(visuals.neighbours),
            "texts": visuals.text_neighbours and _text_neighbours(visuals.text_neighbours),
            "guesses": visuals.guesses,
            "patches": visuals.patches and {"strip": strip(visuals.patches.pictures), "of": visuals.patches},
            "held_out": visuals.embedding.held_out,
            **_embedding(visuals.embedding),
        }
    return render(
        "run.html",
        record=record,
        title=title(record),
        headline=_headline(record),
        tables=[
            ("At the end of training", _rows(record.metrics)),
            ("Evaluated since", _rows(record.evaluations, dated=True)),
        ],
        measured=bool(record.metrics or record.evaluations),
        charts=list(_charts(record)),
        note=note,
        environment={"sslcli": identity.get("version"), **identity.get("environment", {})},
        commands=_commands(record.path, identity),
        config=record.config_text,
        log="\n".join(record.log.splitlines()[-_LOG_LINES:]),
        **shown,
    )


def title(record: Record) -> str:
    """Return objective, encoder and dataset, such as ``InfoNCE, ConvNetSmall, fashion_mnist_mini``."""
    return ", ".join(record.choice(group) for group in ("objective", "encoder", "dataset"))


def _headline(record: Record) -> dict[str, Any] | None:
    name = record.headline
    if name is None:
        return None
    reading = record.metrics[name]
    value, sign, error = with_error(reading).partition(" ±")
    return {
        "name": name,
        "value": value,
        "rest": sign + error,
        "verdict": _verdict(reading),
        "below_start": below_start(name, reading),
        "protocol": reading.protocol,
        "chart": charts.dots("headline", name, {"trained": reading.value, **reading.baselines}, reading),
    }


def _verdict(reading: Reading) -> str:
    """Return how far a metric is from its baselines."""
    best = best_baseline(reading.baselines, reading.higher_is_better)
    if best is None:
        return ""
    gains = [f"{gain(reading, best)} against the best baseline ({best})"]
    if "random_init" in reading.baselines and best != "random_init":
        gains.insert(0, f"{gain(reading, 'random_init')} against random weights")
    return ", ".join(gains)


def _rows(metrics: Mapping[str, Reading], *, dated: bool = False) -> list[Row]:
    """Return the rows of a table; ``dated`` adds each metric's step and seed, where they differ between metrics."""
    return [
        Row(
            name,
            with_error(reading) + (f", std {number(reading.std, reading.unit)}" if reading.std else ""),
            [
                (baseline, number(value, reading.unit, reading.standard_error))
                for baseline, value in reading.baselines.items()
            ],
            "; ".join(filter(None, [_gain(reading), reading.protocol, _date(reading) if dated else ""])),
        )
        for name, reading in metrics.items()
    ]


def _gain(reading: Reading) -> str:
    best = best_baseline(reading.baselines, reading.higher_is_better)
    return "" if best is None else f"{gain(reading, best)} against {best}"


def _date(reading: Reading) -> str:
    facts = {"step": reading.step, "seed": reading.seed}
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)


def _charts(record: Record) -> Iterator[Chart]:
    """Yield charts of the loss with its chance level, of every other part of it, and of the speed of the run."""
    if not record.lines:
        return
    names = list(dict.fromkeys(name for line in record.lines for name in line))
    yield _chart(record, "loss", "chance" if "chance" in names else None)
    drawn = [record.series("loss"), ([], [])]
    for name in names:
        level = f"{name}/chance"
        if name in _BOOKKEEPING or name.endswith("/chance") or record.series(name) in drawn:
            continue  # an objective with one term logs its loss under that term's name, too
        drawn.append(record.series(name))
        final = record.metrics.get(name.removeprefix("probe/").removeprefix("online_"))
        yield _chart(record, name, level if level in names else None, share=final is not None and final.unit == SHARE)
    yield _chart(record, "lr", None, title="learning rate")
    yield _chart(record, "samples_per_second", None, title="samples per second")
    yield _chart(record, "data_wait", None, title="time spent waiting for data", share=True)


def _chart(record: Record, name: str, level: str | None, *, title: str = "", share: bool = False) -> Chart:
    x, y = record.series(name)
    lines = [charts.Curve(x, y, label=name.rpartition("/")[2] if level else "")]
    if level:
        lines.append(charts.Curve(*record.series(level), label="chance level", colour=CONTROL, dashed=True))
    last = "" if not y else f"{100 * y[-1]:.3g} %" if share else f"{y[-1]:.4g}"
    title = title or name
    drawn = charts.curves(
        f"curve-{re.sub(r'[^A-Za-z0-9]', '-', name)}", f"{title} over steps, last {last}", lines,
        share=share,
    )  # fmt: skip
    return Chart(title, drawn, last)


def _neighbours(found: Neighbours) -> dict[str, Any]:
    return {"rows": list(neighbour_rows(found)), "of": found.found, "size": enlarged({"": found.queries})}


def _text_neighbours(found: TextNeighbours) -> dict[str, Any]:
    return {"rows": list(rows_of(found.queries, found.nearest, found.found)), "of": found.found, "kind": found.kind}


def _embedding(shown: Embedding) -> dict[str, Any]:
    """Return the maps with their legend, and the spectrum, of finite features only."""
    finite = shown.trained.isfinite().all(1)
    if int(finite.sum()) < 3:
        return {"maps": [], "spectrum": None}
    features, labels = shown.trained[finite], None if shown.labels is None else shown.labels[finite]
    classes = [] if labels is None else labels.unique().tolist()
    colours = [variable(colour) for colour in charts.class_colours(len(classes))]
    values = singular_values(features), singular_values(shown.untrained)
    drawn = charts.spectrum("spectrum", "singular values of the features, trained and untrained", *values)
    return {
        "maps": [
            Chart(found.method, charts.scatter(f"map{k}", f"{found.method} of the features", found.points, labels))
            for k, found in enumerate(maps(features))
        ],
        "legend": [
            (colour, class_name(shown.classes, label) if shown.classes else f"class {label}")
            for colour, label in zip(colours, classes if 1 < len(classes) <= _LEGEND else ())
        ],
        "num_classes": len(classes),
        "num_mapped": len(features),
        "spectrum": drawn,
        "halves": [_to_half(value) for value in values],
        "directions": len(values[0]),
    }


def _to_half(values: Tensor) -> int:
    """Return how many of the largest principal components are needed for half of the variance."""
    shares = values.square().cumsum(0) / values.square().sum().clamp(min=1e-30)
    return int(torch.searchsorted(shares, 0.5)) + 1


def _commands(run_dir: Path, identity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return descriptions and commands for the next steps, to be run in the folder in which the run was started."""
    run = override("run", run_dir)
    command = identity.get("environment", {}).get("command")
    return [
        *([("Resume the run; with more train.steps, extend it", command)] if command else []),
        ("Evaluate", f"ssl-eval {run}"),
        ("Export", f"ssl-export {run} format=safetensors"),
        ("Load in Python", loading(run_dir)),
        ("Update this page, with later evaluations", f"ssl-report {run}"),
    ]
