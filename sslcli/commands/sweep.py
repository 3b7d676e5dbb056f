"""A sweep as a whole: whether its launcher can start it, and what came of its jobs: exit code and last line."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sslcli.config.arguments import asks_for_plan
from sslcli.config.secrets import shown
from sslcli.errors import UserError
from sslcli.run_dir import inside
from sslcli.run_dir.outcome import FAILED, NAME, OK, PRUNED, RUNNING, Outcome, read_outcomes
from sslcli.sweeps import sweep_json

_FIRST_TOLD = (1, 2, 130, 75, 0)  # a bug rather than a mistake of the user, a failure rather than a stop
_KILLED = "it wrote no outcome: it was killed, its machine failed, or it still runs and the launcher does not wait."


def check_launcher(overrides: Sequence[str], *, is_sweep: bool) -> None:
    """Check, before anything is written, that the launcher that a command chooses has a sweep to start, and can.

    Raises:
        UserError: the command is no sweep, or there is no Slurm here, or not the package that submits jobs to it.
    """
    search = [value for key, _, value in (override.partition("=") for override in overrides) if key == "hydra/sweeper"]
    if search and not is_sweep:
        raise UserError("hydra/sweeper chooses the jobs of a sweep. Add -m.")
    if is_sweep and search and search[-1] != "grid" and asks_for_plan(overrides):
        raise UserError(
            f"plan=true: hydra/sweeper={search[-1]} chooses each job by results of others. Plan one, without -m."
        )
    chosen = [value for key, _, value in (override.partition("=") for override in overrides) if key == "hydra/launcher"]
    if not chosen:
        return
    launcher = f"hydra/launcher={chosen[-1]}"
    if not is_sweep:
        raise UserError(f"{launcher} starts the jobs of a sweep. Add -m, for a single job, too.")
    if launcher in ("hydra/launcher=slurm", "hydra/launcher=submitit_slurm"):
        if importlib.util.find_spec("submitit") is None:
            raise UserError(f"{launcher} comes with a package of its own. Install it: pip install 'sslcli[slurm]'")
        if shutil.which("sbatch") is None:
            raise UserError(f"{launcher}: there is no sbatch on the PATH. Start it where Slurm is.")


def sweep_ended(program: str, sweep_dir: Path, sweep: str) -> int:
    """Print and write what came of a sweep whose launcher has returned; return its exit code.

    Why that is not 0 is printed on stderr.

    Args:
        program: the name of the command.
        sweep_dir: the folder of the sweep.
        sweep: the start of the sweep, as the outcomes name it.
    """
    tell_sweep(sweep_dir)
    outcomes = {job: _settled(outcome) for job, outcome in read_outcomes(sweep_dir, sweep).items()}
    failed = {job: outcome for job, outcome in outcomes.items() if outcome.outcome == FAILED}
    stopped = [job for job, outcome in outcomes.items() if outcome.outcome not in (OK, FAILED, PRUNED)]
    count = f"of {len(outcomes)} jobs of the sweep"
    if failed:
        job, first = next(iter(failed.items()))
        text = f"error: {len(failed)} {count} failed ({sweep_dir}/*/{NAME}). Job {job}: {first.message}"
        print(shown(f"{program}: {text}"), file=sys.stderr)
    elif stopped:
        print(f"{program}: {len(stopped)} {count} stopped on a signal; the same command continues", file=sys.stderr)
    codes = {outcome.exit_code for outcome in outcomes.values()}
    return next((code for code in _FIRST_TOLD if code in codes), 0)


def tell_sweep(sweep_dir: Path, *, page: bool = False) -> bool:
    """Print the table of a sweep, and write it into its folder with the page that compares the runs.

    Args:
        sweep_dir: the folder of the sweep.
        page: write the page also where the runs have none of their own, by ``log.report=false``.

    Returns:
        Whether there is such a sweep: whether its sweeper has written ``sweep.json``.
    """
    if not (sweep_dir / sweep_json.NAME).is_file():
        return False
    from sslcli.report.write import COMPARISON, PAGE, can_draw
    from sslcli.sweeps.results import read_sweep
    from sslcli.sweeps.table import name_of, table, write_csv, write_results

    found = read_sweep(sweep_dir)
    if found is None:
        return False
    for line in table(found):
        print(shown(line), flush=True)
    write_csv(found)
    sweep_json.change(sweep_dir, functools.partial(write_results, found))
    runs = {name_of(job, found): job.run for job in found.jobs if job.run is not None}
    if can_draw() and runs and (page or any((run.path / PAGE).is_file() for run in runs.values())):
        from sslcli.report.comparison import comparison_page

        text = comparison_page([*runs.values()], sweep_dir, [*runs])
        inside.write_text(sweep_dir, COMPARISON, text)
        print(f"page  {sweep_dir / COMPARISON}", flush=True)
    return True


def _settled(outcome: Outcome) -> Outcome:
    """Return a job's outcome, which is a failure where the job wrote none."""
    return Outcome(outcome=FAILED, message=_KILLED, exit_code=1) if outcome.outcome == RUNNING else outcome
