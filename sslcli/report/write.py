"""Write ``report.html`` into a run directory, or report why that is not possible."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sslcli.report.visuals import Visuals
from sslcli.run_dir import inside
from sslcli.run_dir.console import Console
from sslcli.run_dir.records import read_run

PAGE, COMPARISON = "report.html", "comparison.html"
BEGINS = rb"\s*<(!doctype )?html"  # a regular expression for the first bytes of a page
MISSING = "needs matplotlib and jinja2: pip install 'sslcli[report]'"


def can_draw() -> bool:
    """Return whether the ``report`` extra is installed."""
    return all(importlib.util.find_spec(name) for name in ("matplotlib", "jinja2"))


def write_page(run_dir: Path, identity: Mapping[str, Any], visuals: Visuals | None, note: str = "") -> None:
    """Write ``report.html`` of a run, from its directory and the visuals of its model."""
    from sslcli.report.page import run_page

    text = run_page(read_run(run_dir), identity, visuals, note)
    inside.write(run_dir, PAGE, lambda file: file.write(text.encode()))


def write_report(run_dir: Path, identity: Mapping[str, Any], visuals: Callable[[], Visuals], console: Console) -> str:
    """Write the page of a run that has just ended; return its path, or a reason why there is none.

    Errors are only warned of, as the run's result has been written already.
    """
    if not can_draw():
        return f"none: it {MISSING}"
    try:
        write_page(run_dir, identity, visuals())
    except Exception as error:
        console.warn(f"{PAGE} could not be written: {str(error) or type(error).__name__}")
        return "none, see the warning; try ssl-report"
    return str(run_dir / PAGE)
