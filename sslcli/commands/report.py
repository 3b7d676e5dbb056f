"""``ssl-report``: write the page of a run again, or one page that compares several."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sslcli.components import restore_components
from sslcli.config.instantiate import allow
from sslcli.config.sections import expand
from sslcli.errors import UserError
from sslcli.evaluation.measure import budget, compute_for
from sslcli.report.collect import collect_visuals
from sslcli.report.visuals import Visuals
from sslcli.run_dir.console import Console
from sslcli.run_dir.files import write_atomically
from sslcli.run_dir.records import read_run, runs_in
from sslcli.training.resume import open_run

PAGE, COMPARISON = "report.html", "comparison.html"
MISSING = "needs matplotlib and jinja2: pip install 'sslcli[report]'"


def run(config: Mapping[str, Any]) -> Path:
    """Write ``report.html`` of one run, or ``comparison.html`` of several or of a sweep; where it is.

    Raises:
        UserError: no run, a place that cannot be written, or the extra is not installed.
    """
    if not can_draw():
        raise UserError(f"ssl-report {MISSING}")
    allow(config["plugins"])
    places = _places(config["run"])
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


def can_draw() -> bool:
    """Whether the ``report`` extra is installed."""
    return all(importlib.util.find_spec(name) for name in ("matplotlib", "jinja2"))


def write_page(run_dir: Path, identity: Mapping[str, Any], shown: Visuals | None, note: str = "") -> None:
    """``report.html`` of a run, from what stands in its directory and what its model can be shown by."""
    from sslcli.report.page import run_page

    text = run_page(read_run(run_dir), identity, shown, note)
    write_atomically(run_dir / PAGE, lambda file: file.write(text.encode()))


def publish(run_dir: Path, identity: Mapping[str, Any], look: Callable[[], Visuals], console: Console) -> str:
    """The page of a run that has just ended, where that is possible: its path, or why there is none.

    Nothing that goes wrong here may fail the run, whose result stands already.
    """
    if not can_draw():
        return f"none: it {MISSING}"
    try:
        write_page(run_dir, identity, look())
    except Exception as error:
        console.warn(f"{PAGE} could not be written: {str(error) or type(error).__name__}")
        return "none, see the warning; try ssl-report"
    return str(run_dir / PAGE)


def _places(given: Any) -> list[Path]:
    """The run directories that ``run`` names: one, those in a folder of runs, or all of a list of either."""
    if isinstance(given, list) and given:
        return [place for name in given for place in _places(name)]
    if given in (None, "", []):
        raise UserError("run is needed: a run directory, a sweep's folder, or a list: run=[runs/a,runs/b]")
    place = expand(str(given))
    if (place / "config.yaml").is_file():
        return [place]
    found = runs_in(place) if place.is_dir() else []
    if not found:
        raise UserError(f"run: there is neither a run nor a folder of runs in {place}.")
    return found


def _folder_of(places: list[Path]) -> Path:
    """Where a comparison is written: beside the runs where they lie side by side, as in a sweep; else here."""
    parents = {place.resolve().parent for place in places}
    return places[0].parent if len(parents) == 1 else Path()


def _output(config: Mapping[str, Any], default: Path) -> Path:
    return expand(config["output"]) if config["output"] else default


def _one(config: Mapping[str, Any], place: Path) -> str:
    """The page of a run, with pictures if its checkpoint, its components and its data are there."""
    from sslcli.report.page import run_page

    identity: Mapping[str, Any] = {}
    shown, note = None, ""
    try:
        _, identity = open_run(str(place))
        shown = _look(config, identity)
    except UserError as error:  # the data have moved, say; the curves and numbers are here
        note = f"Without pictures: {error}"
    return run_page(read_run(place), identity, shown, note)


def _look(config: Mapping[str, Any], state: Mapping[str, Any]) -> Visuals:
    compute = compute_for(config, state)
    components = restore_components(state, compute.device)
    return collect_visuals(state["config"], components, compute, budget=budget(state["seconds"]))
