"""The processes that share a study: which of them are alive, so that the trials of a killed one are taken up again."""

from __future__ import annotations

import fcntl
import os
import uuid
from contextlib import ExitStack
from pathlib import Path

from sslcli.errors import UserError
from sslcli.run_dir import inside

_FOLDER = "workers"


class Workers:
    """This process among those that share a study. Each holds the lock of a file; of a killed one, it is free.

    POSIX locks belong to the process: its jobs, which may outlive it, do not hold them.

    Args:
        sweep_dir: the folder of the sweep, which all workers reach.
        held: keeps the locks until it is closed.
    """

    def __init__(self, sweep_dir: Path, held: ExitStack) -> None:
        self._sweep_dir, self._held = sweep_dir, held
        self.me = uuid.uuid4().hex
        self._mine: set[str] = set()
        inside.make_folder(sweep_dir, _FOLDER)
        if not self._take(self.me, os.O_RDWR | os.O_CREAT):
            raise UserError(f"run_dir: {sweep_dir / _FOLDER} has no locks. Use a local disk.")

    def is_mine(self, worker: str) -> bool:
        """Whether a worker is this one, or has died and this one has taken its place for good."""
        if worker in self._mine:
            return True
        try:
            return self._take(worker, os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            return False  # of another place

    def leave(self) -> None:
        """Remove the files of this worker, which has no trial left."""
        for worker in self._mine:
            inside.remove(self._sweep_dir, f"{_FOLDER}/{worker}")

    def _take(self, worker: str, flags: int) -> bool:
        with ExitStack() as stack:
            file = stack.enter_context(inside.opened(self._sweep_dir, f"{_FOLDER}/{worker}", flags, "r+b"))
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            self._held.enter_context(stack.pop_all())
        self._mine.add(worker)
        return True
