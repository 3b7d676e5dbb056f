"""``ssl-report``: write the page of a run again, or one page that compares several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.commands.restored import compute_for, visuals_of
from sslcli.components import restore_components
from sslcli.config.composed import ReportConfig
from sslcli.config.instantiate import allow
from sslcli.config.paths import expand
from sslcli.errors import UserError
from sslcli.report.visuals import Visuals
from sslcli.report.write import COMPARISON, MISSING, PAGE, can_draw
from sslcli.run_dir.checkpoint import State, open_run
from sslcli.run_dir.console import Console
from sslcli.run_dir.files import write_atomically
from sslcli.run_dir.layout import is_run
from sslcli.run_dir.records import read_run, runs_in


def run(config: ReportConfig) -> Path:
    """Write ``report.html`` of one run, or ``comparison.html`` of several or of a sweep; where it is.

    Raises:
        UserError: no run, a place that cannot be written, or the extra is not installed.
    """
    if not can_draw():
        raise UserError(f"ssl-report {MISSING}")
    allow(config.plugins)
    places = _places(config.run)
    if len(places) == 1:
        path = _output(config, places[0] / PAGE)
        text = _one(config, places[0])
    else:
        from sslcli.report.comparison import comparison_page

        path = _output(config, _folder_of(places) / COMPARISON)
        text = comparison_page([read_run(place) for place in places], path.parent)
    write_atomically(path, lambda file: file.write(text.encode()), key="output")
    Console().line(f"wrote {path}")
    return path


def _places(given: Any) -> list[Path]:
    """The run directories that ``run`` names: one, those in a folder of runs, or all of a list of either."""
    if isinstance(given, list) and given:
        return [place for name in given for place in _places(name)]
    if given in (None, "", []):
        raise UserError("run is needed: a run directory, a sweep's folder, or a list: run=[runs/a,runs/b]")
    place = expand(str(given))
    if is_run(place):
        return [place]
    found = runs_in(place) if place.is_dir() else []
    if not found:
        raise UserError(f"run: there is neither a run nor a folder of runs in {place}.")
    return found


def _folder_of(places: list[Path]) -> Path:
    """Where a comparison is written: beside the runs where they lie side by side, as in a sweep; else here."""
    parents = {place.resolve().parent for place in places}
    return places[0].parent if len(parents) == 1 else Path()


def _output(config: ReportConfig, default: Path) -> Path:
    return expand(config.output) if config.output else default


def _one(config: ReportConfig, place: Path) -> str:
    """The page of a run, with pictures if its checkpoint, its components and its data are there."""
    from sslcli.report.page import run_page

    state: Mapping[str, Any] = {}
    visuals, note = None, ""
    try:
        _, state = open_run(str(place))
        visuals = _visuals(config, state)
    except UserError as error:  # the data have moved, say; the curves and numbers are here
        note = f"Without pictures: {error}"
    return run_page(read_run(place), state, visuals, note)


def _visuals(config: ReportConfig, state: State) -> Visuals:
    compute = compute_for(config.device, state)
    components = restore_components(state, compute.device)
    return visuals_of(state["config"], components, compute, seconds=state["seconds"])
