"""Who may write: a run's one live process, or whoever's turn it is. The kernel drops a lock when its owner dies."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sslcli.errors import UserError
from sslcli.run_dir.files import writable


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold ``run_dir`` for this process.

    POSIX locks (not flock) belong to the process and are not inherited by data workers, so a run that
    was killed frees its directory although its workers may live on for a moment.

    Raises:
        UserError: another live process holds it, named by host and pid.
    """
    path = run_dir / "lock"
    with writable(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise UserError(f"run_dir: {path} cannot be locked: {error.strerror}. Use a local disk.") from None
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UserError(
                f"run_dir: {run_dir} is in use by {owner}. Wait for it, stop it, or give another run_dir=..."
            ) from None
        with writable(path):
            file.truncate(0)
            file.write(f"{socket.gethostname()} pid {os.getpid()}\n")
            file.flush()
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait for whoever holds the lock file ``path``, then hold it: for changing a file that others change, too."""
    with writable(path):
        file = path.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(f"run: {path} cannot be locked: {error.strerror}. Use a local disk.") from None
        yield
