"""``outcome.json``: how a job of a sweep ended. A sweep's exit code is made of them, whichever process a job ran in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sslcli.config.composed import read
from sslcli.run_dir import inside
from sslcli.run_dir.json_files import JsonFile, side_file
from sslcli.run_dir.output import folder_for

NAME = "outcome.json"
RUNNING, OK, FAILED, STOPPED, PRUNED = "running", "ok", "failed", "stopped", "pruned"


@dataclass(kw_only=True)
class Outcome(JsonFile):
    """The content of the file.

    A job writes ``running`` when it starts: where that still stands after the sweep, the job was killed.
    """

    outcome: str
    message: str = ""  # why a job failed, or the signal that stopped it
    exit_code: int = 0
    sweep: str = ""  # the start of the sweep: the outcomes of an earlier one do not count for it


def write_outcome(sweep_dir: Path, job: int, outcome: Outcome) -> None:
    """Write the outcome of a job into its folder of the sweep, which is made.

    Raises:
        UserError: it cannot be written.
    """
    folder = sweep_dir / str(job)
    with folder_for(folder / NAME, "run_dir"):
        inside.write_text(folder, NAME, json.dumps(asdict(outcome), indent=2) + "\n")


def read_outcome(folder: Path) -> Outcome | None:
    """Return how the job in ``folder`` ended at its last start; None if it was not started."""
    content = side_file(folder, NAME, Outcome)
    return None if content is None else read(content, Outcome)


def read_outcomes(sweep_dir: Path, sweep: str) -> dict[int, Outcome]:
    """Return by their numbers the outcomes of the jobs that one start of a sweep has begun."""
    found = {}
    for name in sorted(filter(str.isdecimal, inside.names(sweep_dir)), key=int):
        outcome = read_outcome(sweep_dir / name)
        if outcome is not None and outcome.sweep == sweep:
            found[int(name)] = outcome
    return found
