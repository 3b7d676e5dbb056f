"""File locks: one live process a run directory, one writer a file. The kernel releases the locks of a dead process."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sslcli.errors import UserError
from sslcli.run_dir import inside
from sslcli.run_dir.files import writable
from sslcli.run_dir.output import folder_for

NAME, EVALUATION = "lock", "eval.lock"  # of the process that trains, and of one that adds to eval.json


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Lock ``run_dir`` for this process.

    POSIX locks (unlike flock) belong to the process and are not inherited by data workers. So a killed run releases
    its directory even while its workers are still alive. Where the block raises UserError, a lock file and folders that
    were made here, and hold nothing else, are removed.

    Raises:
        UserError: another live process holds the lock; the message gives its host and pid.
    """
    path = run_dir / NAME
    with ExitStack() as held:
        held.enter_context(folder_for(path, "run_dir"))
        with writable(run_dir):
            is_new = NAME not in inside.names(run_dir)
            file = held.enter_context(inside.opened(run_dir, NAME, os.O_RDWR | os.O_CREAT, "r+b"))
        if os.fstat(file.fileno()).st_nlink > 1:
            raise UserError(f"run_dir: {path} has another name as well (a hard link). Remove it: rm {path}")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise UserError(f"run_dir: {path} cannot be locked: {error.strerror}. Use a local disk.") from None
            file.seek(0)
            owner = file.read(200).decode(errors="replace").strip() or "another process"
            raise UserError(
                f"run_dir: {run_dir} is in use by {owner}. Wait for it, stop it, or give another run_dir=..."
            ) from None
        if not os.fstat(file.fileno()).st_nlink:
            raise UserError(f"run_dir: {run_dir} was in use by a command that has just been refused. Try again.")
        with writable(path):
            file.truncate(0)
            file.write(f"{socket.gethostname()} pid {os.getpid()}\n".encode())
            file.flush()
        try:
            yield
        except UserError:
            if is_new:
                inside.remove(run_dir, NAME)
            raise
        finally:
            file.truncate(0)


@contextmanager
def in_turn(run_dir: Path, name: str) -> Iterator[None]:
    """Wait for the lock file ``name`` and hold it, to change a file that other processes change, too."""
    path = run_dir / name
    with ExitStack() as held:
        with writable(path):
            file = held.enter_context(inside.opened(run_dir, name, os.O_RDWR | os.O_CREAT, "r+b"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise UserError(f"run: {path} cannot be locked: {error.strerror}. Use a local disk.") from None
        yield
