"""``ssl-report``: write the page of a run again, or one page that compares several runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslcli.commands.restored import compute_for, visuals_of
from sslcli.commands.sweep import tell_sweep
from sslcli.components import restore_components
from sslcli.config.composed import ReportConfig
from sslcli.config.instantiate import allow
from sslcli.config.paths import expand
from sslcli.errors import UserError
from sslcli.report.visuals import Visuals
from sslcli.report.write import BEGINS, COMPARISON, MISSING, PAGE, can_draw
from sslcli.run_dir import inside
from sslcli.run_dir.checkpoint import State, open_run
from sslcli.run_dir.console import Console
from sslcli.run_dir.files import write_atomically
from sslcli.run_dir.layout import is_run, refuse_links
from sslcli.run_dir.output import check_output, folder_for
from sslcli.run_dir.records import read_run, runs_in


def run(config: ReportConfig) -> Path:
    """Write ``report.html`` of one run, or ``comparison.html`` of several or of a sweep, and return its path.

    Raises:
        UserError: there is no run, the file cannot be written, or the extra is not installed.
    """
    if not can_draw():
        raise UserError(f"ssl-report {MISSING}")
    allow(config.plugins)
    if not config.output and isinstance(config.run, str) and tell_sweep(expand(config.run), page=True):
        return expand(config.run) / COMPARISON
    run_dirs = _run_dirs(config.run)
    for run_dir in run_dirs:
        refuse_links(run_dir)
    single = len(run_dirs) == 1
    if config.dataset.node and not single:
        raise UserError("dataset: a comparison reads no data; leave it out.")
    own = run_dirs[0] / PAGE if single else _folder_of(run_dirs) / COMPARISON
    path = expand(config.output) if config.output else own
    replaces = check_output(path, BEGINS, "output" if config.output else "run") and bool(config.output)
    text = _one(config, run_dirs[0]) if single else _comparison(run_dirs, path.parent)
    if config.output:
        with folder_for(path):
            write_atomically(path, lambda file: file.write(text.encode()), key="output")
    else:
        inside.write_text(path.parent, path.name, text)
    Console().line(f"wrote {path}{', which replaces an earlier one' * replaces}")
    return path


def _comparison(run_dirs: list[Path], folder: Path) -> str:
    from sslcli.report.comparison import comparison_page

    return comparison_page([read_run(run_dir) for run_dir in run_dirs], folder)


def _run_dirs(given: Any) -> list[Path]:
    """Return the run directories in ``run``: a run, a folder of runs, or a list of either."""
    if isinstance(given, list) and given:
        return [run_dir for name in given for run_dir in _run_dirs(name)]
    if given in (None, "", []):
        raise UserError("run is needed: a run directory, a sweep's folder, or a list: run=[runs/a,runs/b]")
    path = expand(str(given))
    if is_run(path):
        return [path]
    found = runs_in(path) if path.is_dir() else []
    if not found:
        raise UserError(f"run: there is neither a run nor a folder of runs in {path}.")
    return found


def _folder_of(run_dirs: list[Path]) -> Path:
    """Return the folder of a comparison: the runs' common parent, as in a sweep, else the current directory."""
    parents = {run_dir.resolve().parent for run_dir in run_dirs}
    return run_dirs[0].parent if len(parents) == 1 else Path()


def _one(config: ReportConfig, run_dir: Path) -> str:
    """Return the page of a run, with pictures if its checkpoint, its components and its data can be loaded."""
    from sslcli.report.page import run_page

    state: Mapping[str, Any] = {}
    visuals, note = None, ""
    try:
        _, state = open_run(str(run_dir))
        visuals = _visuals(config, state)
    except UserError as error:  # for example, the data have moved; show curves and metrics only
        note = f"Without pictures: {error}"
        Console().warn(note)
    return run_page(read_run(run_dir), state, visuals, note)


def _visuals(config: ReportConfig, state: State) -> Visuals:
    compute = compute_for(config.device, state)
    components = restore_components(state, compute.device, config.dataset)
    return visuals_of(state["config"], components, compute, seconds=state["seconds"])
