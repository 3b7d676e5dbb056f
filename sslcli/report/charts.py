"""The charts of a report: curves over steps, a metric and its baselines, the embedding's map and spectrum."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from torch import Tensor

from sslcli.report.figures import ACCENT, CATEGORIES, CONTROL, INK, MUTED, drawing
from sslcli.run_dir.formatting import SHARE
from sslcli.run_dir.measurements import Measurement, number

_POINTS = 600  # points of a curve; more would not be visible


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    colour: str = ACCENT
    dashed: bool = False
    group: str = ""  # last part of the curve's id, by which the page finds all curves of one run


def curves(name: str, description: str, lines: Sequence[Curve], *, share: bool = False) -> Markup:
    """Draw curves over steps; ``share`` labels the vertical axis in per cent."""
    with drawing(name, description) as made:
        axes = made.axes
        for line in lines:
            x, y = thinned(line.x, line.y)
            style = "--" if line.dashed else "-"
            marker = "o" if len(x) == 1 else ""
            width = 1.2 if line.dashed else 1.8
            (drawn,) = axes.plot(x, y, style, marker=marker, color=line.colour, label=line.label, linewidth=width)
            if line.group:
                drawn.set_gid(line.group)
        _ticks(axes)
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %" if share else short(value)))
        if any(line.label for line in lines):
            axes.legend()
        return made.svg()


def thinned(x: Sequence[float], y: Sequence[float], points: int = _POINTS) -> tuple[list[float], list[float]]:
    """Reduce a curve to about ``points``, keeping the minimum and maximum of each interval so that no spike is lost."""
    if len(x) <= points:
        return list(x), list(y)
    kept: set[int] = {0, len(x) - 1}
    intervals = points // 2
    for k in range(intervals):
        interval = range(k * len(x) // intervals, (k + 1) * len(x) // intervals)
        finite = [i for i in interval if math.isfinite(y[i])] or list(interval)
        kept |= {min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}
    order = sorted(kept)
    return [x[i] for i in order], [y[i] for i in order]


def short(value: float) -> str:
    """Return an axis label: 1500 for 1500, 20k for 20000."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:.4g}"


def dots(name: str, metric: str, rows: Mapping[str, float], measured: Measurement) -> Markup:
    """Draw a metric's finite values as labelled dots on one axis, the first emphasised, with its standard error."""
    error = measured.standard_error

    def shown(value: float) -> str:
        return number(value, measured.unit, error)

    rows = {label: value for label, value in rows.items() if math.isfinite(value)}
    if not rows:
        return Markup("")
    labels, values = list(rows), list(rows.values())
    description = f"{metric}: " + ", ".join(f"{label} {shown(value)}" for label, value in rows.items())
    with drawing(name, description, height=34 * len(rows) + 44) as made:
        axes = made.axes
        spread = (max(values) - min(values)) or abs(values[0]) or 1.0
        if error:
            axes.plot([values[0] - error, values[0] + error], [0, 0], color=ACCENT, linewidth=1.8)
        for row, value in enumerate(values):
            colour = ACCENT if row == 0 else CONTROL
            axes.plot([value], [-row], "o", color=colour, markersize=9 if row == 0 else 7, clip_on=False)
            weight = "bold" if row == 0 else "normal"
            axes.annotate(
                shown(value), (value, -row), (9, 0), textcoords="offset points", va="center",
                color=INK if row == 0 else MUTED, fontweight=weight, fontsize=12 if row == 0 else 11,
            )  # fmt: skip
        axes.set_yticks([-row for row in range(len(labels))], labels)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(0.6 - len(rows), 0.6)
        axes.set_xlim(min(values) - 0.1 * spread, max(values) + 0.45 * spread)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        ticks = (lambda value, _: f"{100 * value:g} %") if measured.unit == SHARE else (lambda value, _: short(value))
        axes.xaxis.set_major_formatter(FuncFormatter(ticks))
        return made.svg()


def scatter(name: str, description: str, points: Tensor, labels: Tensor | None) -> Markup:
    """Draw the points (N, 2) of a map, coloured by label (N,) if given; its axes have no meaning and are not drawn."""
    with drawing(name, description, height=300) as made:
        axes = made.axes
        axes.set_axis_off()
        classes = [0] if labels is None else labels.unique().tolist()
        colours = class_colours(len(classes))
        for colour, label in zip(colours, classes):
            mine = points if labels is None else points[labels == label]
            axes.plot(
                *mine.T.tolist(), "o", color=colour, markersize=3.2, markeredgewidth=0, alpha=0.75, linestyle="none"
            )
        return made.svg()


def class_colours(count: int) -> list[str]:
    """Return a colour for each class: the page's ten, or evenly spaced hues if there are more classes."""
    if count <= len(CATEGORIES):
        return list(CATEGORIES[:count])
    hues = (colorsys.hls_to_rgb(k / count, 0.55, 0.6) for k in range(count))
    return ["#" + "".join(f"{round(255 * part):02x}" for part in hue) for hue in hues]


def spectrum(name: str, description: str, trained: Tensor, untrained: Tensor) -> Markup:
    """Draw singular values, relative to the largest, by rank; both axes are logarithmic."""
    with drawing(name, description, height=300) as made:
        axes = made.axes
        for values, label, colour, style in (
            (trained, "trained", ACCENT, "-"),
            (untrained, "random init", CONTROL, "--"),
        ):
            kept = (values / values[0].clamp(min=1e-30)).clamp(min=1e-6)
            ranks = torch.arange(1, len(kept) + 1)
            picked = torch.logspace(0, math.log10(len(kept)), 200).round().long().unique() - 1
            axes.plot(ranks[picked].tolist(), kept[picked].tolist(), style, color=colour, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
        axes.set_xlabel("rank")
        axes.legend(loc="lower left")
        return made.svg()


def _ticks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4))
