"""``report.html`` in a run directory: where it can be made, and what is said where it cannot."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sslcli.report.visuals import Visuals
from sslcli.run_dir.console import Console
from sslcli.run_dir.files import write_atomically
from sslcli.run_dir.records import read_run

PAGE, COMPARISON = "report.html", "comparison.html"
MISSING = "needs matplotlib and jinja2: pip install 'sslcli[report]'"


def can_draw() -> bool:
    """Whether the ``report`` extra is installed."""
    return all(importlib.util.find_spec(name) for name in ("matplotlib", "jinja2"))


def write_page(run_dir: Path, identity: Mapping[str, Any], visuals: Visuals | None, note: str = "") -> None:
    """``report.html`` of a run, from what stands in its directory and what there is to show of its model."""
    from sslcli.report.page import run_page

    text = run_page(read_run(run_dir), identity, visuals, note)
    write_atomically(run_dir / PAGE, lambda file: file.write(text.encode()))


def write_report(run_dir: Path, identity: Mapping[str, Any], visuals: Callable[[], Visuals], console: Console) -> str:
    """Write the page of a run that has just ended, where that is possible: its path, or why there is none.

    Nothing that goes wrong here may fail the run, whose result stands already.
    """
    if not can_draw():
        return f"none: it {MISSING}"
    try:
        write_page(run_dir, identity, visuals())
    except Exception as error:
        console.warn(f"{PAGE} could not be written: {str(error) or type(error).__name__}")
        return "none, see the warning; try ssl-report"
    return str(run_dir / PAGE)
