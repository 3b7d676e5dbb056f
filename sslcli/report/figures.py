"""Matplotlib figures as inline SVG with the page's CSS variables as colours, so that they follow its theme."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Placeholder colours, which are replaced in the SVG by the variables of style.css.
INK, MUTED, GRID, ACCENT, CONTROL = (f"#0a0b0{k}" for k in range(5))
CATEGORIES = tuple(f"#0c0d{k:02x}" for k in range(10))
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", ACCENT: "accent", CONTROL: "control"} | {
    colour: f"c{k}" for k, colour in enumerate(CATEGORIES)
}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 1,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "figure.constrained_layout.use": True,
}


def variable(colour: str) -> str:
    """Return the CSS variable of a placeholder colour, and other colours unchanged."""
    return f"var(--{_VARIABLES[colour]})" if colour in _VARIABLES else colour


class Drawing:
    """One figure of the page.

    Args:
        name: a unique name on the page, the prefix of the figure's ids.
        description: a text for screen readers.
    """

    def __init__(self, name: str, description: str, figure: Figure) -> None:
        self.name, self.description, self.figure = name, description, figure
        self.axes: Axes = figure.add_subplot()

    def svg(self) -> Markup:
        """Return the figure as an SVG element that fills the width of its container."""
        buffer = io.StringIO()
        # No date and a fixed salt, so that the same run gives the same bytes.
        with rc_context({**_STYLE, "svg.hashsalt": self.name}):
            FigureCanvasSVG(self.figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
        text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
        text = text.replace("<svg", f'<svg role="img" aria-label="{escape(self.description)}"', 1)
        for mark in ('id="', 'href="#', "url(#"):  # ids must be unique on the page
            text = text.replace(mark, f"{mark}{self.name}-")
        for colour in _VARIABLES:
            text = text.replace(colour, variable(colour))
        return Markup(text)


@contextmanager
def drawing(name: str, description: str, *, width: float = 360, height: float = 220) -> Iterator[Drawing]:
    """Yield an empty figure of this size in CSS pixels, in the page's style."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        figure.patch.set_alpha(0)
        made = Drawing(name, description, figure)
        made.axes.patch.set_alpha(0)
        yield made
