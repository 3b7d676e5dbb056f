"""What came of a sweep: its exit code and its last line, from the outcomes of its jobs."""

from __future__ import annotations

import sys
from pathlib import Path

from sslcli.config.secrets import shown
from sslcli.run_dir.outcome import FAILED, NAME, OK, RUNNING, Outcome, read_outcomes

_FIRST_TOLD = (1, 2, 130, 75, 0)  # a bug rather than a mistake of the user, a failure rather than a stop
_KILLED = "it wrote no outcome: it was killed, its machine failed, or it still runs and the launcher does not wait."


def sweep_ended(program: str, sweep_dir: Path, sweep: str) -> int:
    """Return the exit code of a sweep whose launcher has returned, and print on stderr why it is not 0.

    Args:
        program: the name of the command.
        sweep_dir: the folder of the sweep.
        sweep: the start of the sweep, as the outcomes name it.
    """
    outcomes = {job: _settled(outcome) for job, outcome in read_outcomes(sweep_dir, sweep).items()}
    failed = {job: outcome for job, outcome in outcomes.items() if outcome.outcome == FAILED}
    stopped = [job for job, outcome in outcomes.items() if outcome.outcome not in (OK, FAILED)]
    count = f"of {len(outcomes)} jobs of the sweep"
    if failed:
        job, first = next(iter(failed.items()))
        text = f"error: {len(failed)} {count} failed ({sweep_dir}/*/{NAME}). Job {job}: {first.message}"
        print(shown(f"{program}: {text}"), file=sys.stderr)
    elif stopped:
        print(f"{program}: {len(stopped)} {count} stopped on a signal; the same command continues", file=sys.stderr)
    codes = {outcome.exit_code for outcome in outcomes.values()}
    return next((code for code in _FIRST_TOLD if code in codes), 0)


def _settled(outcome: Outcome) -> Outcome:
    """Return a job's outcome, which is a failure where the job wrote none."""
    return Outcome(outcome=FAILED, message=_KILLED, exit_code=1) if outcome.outcome == RUNNING else outcome
