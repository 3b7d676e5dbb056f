"""File locks: one live process a run directory, one writer a file. The kernel releases the locks of a dead process."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from sslcli.errors import StartAgain, UserError
from sslcli.run_dir import inside
from sslcli.run_dir.files import writable
from sslcli.run_dir.output import folder_for
from sslcli.run_dir.owner import LOOK, Owner, Superseded, owned, read_owner, write_owner

NAME, EVALUATION = "lock", "eval.lock"  # of the process that trains, and of one that adds to eval.json
_HELD = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # on a network's file system that has none
_PAUSE = 0.2  # seconds between two tries


@contextmanager
def locked(run_dir: Path, mine: Owner | None = None, *, seconds: float = 0.0, look: float = LOOK) -> Iterator[None]:
    """Lock ``run_dir`` for this process, which owns the run meanwhile.

    POSIX locks (unlike flock) belong to the process and are not inherited by data workers. So a killed run releases
    its directory even while its workers are still alive. Where the block raises UserError, a lock file and folders that
    were made here, and hold nothing else, are removed.

    Args:
        run_dir: the run directory.
        mine: this process; by default as the environment describes it.
        seconds: how long to wait for an earlier start of the same Slurm job, which ends when it sees this one, and for
            a process that ends because the command that started it was killed.
        look: seconds between two of its looks.

    Raises:
        UserError: another live process holds the lock; the message gives its host and pid.
        StartAgain: it is an earlier start of the same Slurm job, and did not end.
    """
    path, mine = run_dir / NAME, mine or Owner.here()
    with ExitStack() as held:
        held.enter_context(folder_for(path, "run_dir"))
        with writable(run_dir):
            is_new = NAME not in inside.names(run_dir)
            file = held.enter_context(inside.opened(run_dir, NAME, os.O_RDWR | os.O_CREAT, "r+b"))
        if os.fstat(file.fileno()).st_nlink > 1:
            raise UserError(f"run_dir: {path} has another name as well (a hard link). Remove it: rm {path}")
        _take(file, run_dir, mine, seconds, look)
        if not os.fstat(file.fileno()).st_nlink:
            raise UserError(f"run_dir: {run_dir} was in use by a command that has just been refused. Try again.")
        with writable(path):
            file.truncate(0)
            file.write(f"{socket.gethostname()} pid {os.getpid()}\n".encode())
            file.flush()
        try:
            with owned(run_dir, mine, look):
                yield
        except Superseded:  # the lock file is that of the newer start
            raise
        except UserError:
            if is_new:
                inside.remove(run_dir, NAME)
            raise
        finally:
            file.truncate(0)


def _take(file: BinaryIO, run_dir: Path, mine: Owner, seconds: float, look: float) -> None:
    """Lock the file, or, where locks do not reach, see to it that no other process writes the run."""
    other = read_owner(run_dir)
    got = _try(file, run_dir)
    deadline = time.monotonic() + seconds
    while got is False and other is not None and other.is_ending() and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        got, other = _try(file, run_dir), read_owner(run_dir)
    far = (  # it is alive where a lock may not reach
        other is not None and other.looked_at(time.time(), look) and (got is None or (got and other.host != mine.host))
    )
    if got is not False and not far:
        return
    if other is None or not mine.follows(other):
        file.seek(0)
        by = (str(other) if far else file.read(200).decode(errors="replace").strip()) or "another process"
        raise UserError(f"run_dir: {run_dir} is in use by {by}. Wait for it, stop it, or give another run_dir=...")
    deadline = time.monotonic() + (2 * look if far else seconds)
    while True:
        if read_owner(run_dir) != mine:
            write_owner(run_dir, mine)  # at which the other one ends, unless it was just writing the file itself
        if not far and _try(file, run_dir):
            return
        if time.monotonic() > deadline:
            break
        time.sleep(_PAUSE)
    if not far:
        raise StartAgain(f"run_dir: {run_dir} is still in use by {other}, after {seconds:g} s (device.meet_s).")


def _try(file: BinaryIO, run_dir: Path) -> bool | None:
    """Lock a file without waiting; return whether that succeeded, or None where there are no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        if error.errno not in _HELD:
            raise UserError(
                f"run_dir: {run_dir / NAME} cannot be locked: {error.strerror}. Use a local disk."
            ) from None
        return False
    return True


def is_held(run_dir: Path) -> bool:
    """Whether a live process holds the lock of a run; where locks do not reach, whether one has held it lately."""
    other = read_owner(run_dir)
    if other is not None and other.host != socket.gethostname():
        return other.looked_at(time.time(), LOOK)
    try:
        with inside.opened(run_dir, NAME, os.O_RDWR, "r+b") as file:
            return _try(file, run_dir) is False
    except OSError:
        return False


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
