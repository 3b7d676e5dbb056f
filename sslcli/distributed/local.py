"""``ssl-train device.num=N``: this process starts the ranks on its host, passes signals on, and says how they ended.

It does not load torch. The ranks find each other as under torchrun, by the same variables.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from sslcli import signals
from sslcli.distributed.start import NAME, PARENT, PORTS
from sslcli.errors import UserError

OWN, GRACE = 2.0, 8.0  # seconds that the other ranks have to end when one has failed: by themselves, after SIGTERM
_PAUSE = 0.05  # seconds between two looks at the ranks
_SET_PARENT_DEATH_SIGNAL = 1  # of prctl (Linux)


class RanksFailed(UserError):
    """A rank failed, which has been told.

    Args:
        exit_code: that of the rank.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("the processes of this run failed, see above")
        self.exit_code = exit_code


def run_ranks(command: Sequence[str], num: int, threads: int) -> None:
    """Start ``num`` processes of a command and wait until all have ended.

    Each has a session of its own, because the Ctrl-C of a terminal reaches all processes of a session: the ranks would
    get it twice, and leave without a checkpoint at the second.

    Args:
        command: of every process.
        num: the number of processes.
        threads: CPU threads of each, if the environment does not say how many.

    Raises:
        Stopped: a signal came, and the ranks have stopped on it.
        RanksFailed: a rank failed.
    """
    name = uuid.uuid4().hex
    common = {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "WORLD_SIZE": str(num),
        "LOCAL_WORLD_SIZE": str(num),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(20000 + zlib.crc32(name.encode()) % (12000 - PORTS)),
        PARENT: str(os.getpid()),
        NAME: name,
    }
    ranks: list[subprocess.Popen[bytes]] = []
    with _forwarding(ranks) as received:
        for rank in map(str, range(num)):
            environment = {**common, "RANK": rank, "LOCAL_RANK": rank}
            ranks.append(subprocess.Popen(command, env=environment, start_new_session=True))
        failed = _wait(ranks, received)
    stopped = {75, 130, *(-signum for signum in received)}
    codes = {rank.returncode for rank in ranks} - {0}
    if failed is not None:
        code = ranks[failed].returncode
        if codes <= stopped or code in {75, 130}:
            told = ranks[0].returncode in {75, 130}  # the others say nothing
            raise signals.Stopped(received[0] if received else signal.SIGTERM, told=told)
        if code < 0:
            _tell(failed, ranks[failed].pid, -code)
        raise RanksFailed(code if code > 0 else 1)


@contextmanager
def _forwarding(ranks: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Pass signals on to the ranks inside this block; yield the list of those that came."""
    received: list[int] = []

    def forward(signum: int, _frame: FrameType | None) -> None:
        received.append(signum)
        for rank in ranks:
            rank.send_signal(signum)  # nothing if it has ended

    with signals.handled_by(forward):  # the ranks answer
        try:
            yield received
        finally:
            for rank in ranks:
                if rank.poll() is None:  # an error of our own
                    rank.kill()


def _wait(ranks: Sequence[subprocess.Popen[bytes]], received: Sequence[int]) -> int | None:
    """Wait until all ranks have ended; end the others if one fails. Return the one that was the cause, or None."""
    cause: int | None = None
    begin = 0.0
    ends = [(OWN, signal.SIGTERM), (OWN + GRACE, signal.SIGKILL)]  # what they get, so many seconds after a failure
    while None in [rank.poll() for rank in ranks]:
        failed = _failed(ranks)
        begin = begin or (time.monotonic() if failed else 0.0)
        if begin and ends and time.monotonic() > begin + ends[0][0]:
            cause = failed[0] if cause is None else cause  # of those that ended by themselves
            signum = ends.pop(0)[1]
            for rank in ranks if not received or signum == signal.SIGKILL else ():
                rank.send_signal(signum)
        time.sleep(_PAUSE)
    return cause if cause is not None else next(iter(_failed(ranks)), None)


def _failed(ranks: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Return the numbers of the ranks that failed, causes first: killed, with a message or stopped, then left alone."""
    failed = [n for n, rank in enumerate(ranks) if rank.returncode]
    return sorted(failed, key=lambda n: (ranks[n].returncode >= 0, -ranks[n].returncode))


def _tell(rank: int, pid: int, signum: int) -> None:
    cause = ", as the kernel does where memory is full" * (signum == signal.SIGKILL)
    print(
        f"{os.path.basename(sys.argv[0] or 'ssl-train')}: error: rank {rank} on {socket.gethostname()} (pid {pid}) was "  # noqa: PTH119
        f"killed by {signal.Signals(signum).name}{cause}; the other ranks were ended. "
        "The same command goes on from the last checkpoint.",
        file=sys.stderr,
    )


def end_with_parent() -> None:
    """In a rank: stop by SIGTERM when the process that started it dies, also if that is killed."""
    parent = os.environ.get(PARENT)
    if parent is not None:
        end_with(int(parent))


def end_with(parent: int) -> None:
    """Stop by SIGTERM when the parent of this process dies, also if that is killed (Linux).

    Raises:
        Stopped: it has died already.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        raise signals.Stopped(signal.SIGTERM)
