"""``owner.json``: which start of a run writes it, so that of two that are alive at once only the newest one does.

Slurm starts a job again where it has lost a node, on which the first start may still train. The lock of the run
directory keeps the second one out as long as the first one holds it, if locks reach that far: over a network they may
not. So the second one writes its name into this file, and the first one, which reads it before every write, ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from sslcli import signals
from sslcli.config.composed import read
from sslcli.errors import StartAgain, UserError
from sslcli.run_dir import inside
from sslcli.run_dir.json_files import JsonFile, side_file

NAME = "owner.json"
SWEEP = "SSLCLI_SWEEP"  # what a sweep sets in the processes of its jobs: its pid
_STARTED_BY = (SWEEP, "SSLCLI_PARENT")  # the first that is set ends this process when it dies itself
LOOK = 10.0  # seconds between two looks at the file
_LOOKS_MISSED = 3  # after which a process counts as dead


class Superseded(StartAgain):
    """A newer start writes the run, so this one must not."""


@dataclass(kw_only=True)
class Owner(JsonFile):
    """The content of the file: a process, and which start of which Slurm job it belongs to.

    Args:
        host, pid: where the process is.
        job: the id of its Slurm job; empty without Slurm.
        restart: how often Slurm has started this job again.
        parent: the pid of the sweep, or of the command with ``device.num``, that started the process; else 0.
        heartbeat: when it last looked at the file, in seconds since 1970.
    """

    host: str
    pid: int
    job: str = ""
    restart: int = 0
    parent: int = 0
    heartbeat: float = field(default=0.0, compare=False)

    @classmethod
    def here(cls, environ: Mapping[str, str] = os.environ) -> Owner:
        """Describe this process."""
        restart = environ.get("SLURM_RESTART_COUNT", "")
        parents = [environ[name] for name in _STARTED_BY if name in environ]
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            job=environ.get("SLURM_JOB_ID", ""),
            restart=int(restart) if restart.isdecimal() else 0,
            parent=int(parents[0]) if parents and parents[0].isdecimal() else 0,
        )

    def follows(self, other: Owner) -> bool:
        """Whether this is a later start of the same job."""
        return bool(self.job) and self.job == other.job and self.restart > other.restart

    def is_ending(self) -> bool:
        """Whether what started the process on this host has died: the process then saves and ends."""
        return bool(self.parent) and self.host == socket.gethostname() and not _is_alive(self.parent)

    def looked_at(self, now: float, look: float = LOOK) -> bool:
        """Whether the process was alive a moment ago, by its own clock."""
        return abs(now - self.heartbeat) < _LOOKS_MISSED * look

    def __str__(self) -> str:
        job = f", start {self.restart + 1} of job {self.job}" if self.job else ""
        return f"{self.host} pid {self.pid}{job}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    try:  # one that nobody has waited for has a number still
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return True


def read_owner(run_dir: Path) -> Owner | None:
    """Return the owner of a run; None if no process writes it."""
    content = side_file(run_dir, NAME, Owner)
    return None if content is None else read(content, Owner)


def write_owner(run_dir: Path, owner: Owner) -> None:
    """Make ``owner`` the owner of a run, with a new heartbeat."""
    inside.write_text(run_dir, NAME, json.dumps(asdict(replace(owner, heartbeat=time.time()))) + "\n")


@contextmanager
def owned(run_dir: Path, owner: Owner, look: float = LOOK) -> Iterator[None]:
    """Own a run in this block, until a newer start owns it: from then on every write into its directory is refused.

    A thread looks at the file, too, and stops training as a signal does.

    Raises:
        Superseded: by a write, or at the end of the block, whatever ended it.
    """
    write_owner(run_dir, owner)
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(run_dir, owner, ended, look), name="owner", daemon=True)
    with inside.checked(run_dir, partial(_check, run_dir, owner)):
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            _check(run_dir, owner)
            inside.remove(run_dir, NAME)


def _keep(run_dir: Path, owner: Owner, ended: threading.Event, look: float) -> None:
    while not ended.wait(look):
        try:
            write_owner(run_dir, owner)
        except Superseded:
            signals.record(signal.SIGTERM)
            return
        except UserError:  # a full disk, which the main thread will tell
            pass


def _check(run_dir: Path, owner: Owner) -> None:
    """Raise Superseded if ``owner`` is not the newest start any more, or the newest one is done with the run."""
    found = read_owner(run_dir)
    if found is None or not (found == owner or owner.follows(found)):
        by = found or "nobody any more"
        raise Superseded(f"run_dir: {run_dir} is written by {by}. This process, {owner}, writes no more and ends.")
