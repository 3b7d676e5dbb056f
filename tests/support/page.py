"""Run the commands of a document, in a process that has done nothing else: ``python page.py DOCUMENT``.

The project's own commands are forks of it, which need not import torch again. A process that has run other tests may
have threads of other libraries, which a fork leaves behind with the locks that they had.
"""

import runpy
import shlex
import subprocess
import sys
from pathlib import Path

from forked import Forked

from sslcli import cli

ROOT = Path(__file__).parents[2]
ENTRIES = {"ssl-train": cli.train, "ssl-eval": cli.evaluate, "ssl-export": cli.export}


def said_by(command: str) -> str:
    """Return what a command prints."""
    program, *arguments = shlex.split(command)
    if program not in ENTRIES:
        return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout  # noqa: S602
    process = Forked(ENTRIES[program], program, *arguments)
    said, _ = process.communicate()
    assert process.returncode == 0, f"{command}: {said[-2000:]}"
    return said


if __name__ == "__main__":
    for command in runpy.run_path(str(ROOT / "scripts" / "tools" / "run_readme.py"))["commands"](sys.argv[1]):
        print(said_by(command), flush=True)
