"""The process that starts the ranks of ``device.num=N``; the ranks here are small programs without torch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.marks import rest_is_slow

from sslcli.distributed.local import _failed, run_ranks
from sslcli.distributed.start import LeftAlone
from sslcli.signals import Stopped

# Under nohup and in a shell's background some signals are ignored, also by the processes that it starts.
PARENT = "import signal, sys\nfor number in (signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_DFL)\n" \
         "from sslcli.distributed.local import RanksFailed, run_ranks\n" \
         "from sslcli.signals import Stopped\n" \
         "try: run_ranks([sys.executable, '-c', sys.argv[1]], 3, 1)\n" \
         "except Stopped as stop: sys.exit(stop.exit_code + 100)\n" \
         "except RanksFailed as failure: sys.exit(failure.exit_code)"  # fmt: skip
# A rank that writes what it hears, and ends by it; rank 1 does as it is told.
RANK = """
import os, signal, sys, time
from sslcli.distributed.local import end_with_parent
rank = int(os.environ["RANK"])
def stop(signum, frame):
    os.write(1, f"{rank} heard {signum}\\n".encode())
    sys.exit(130 if signum == signal.SIGINT else 75)
for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(signum, stop)
end_with_parent()
os.write(1, f"{rank} is {os.getpid()} {os.environ['WORLD_SIZE']}\\n".encode())
"""
# Not one long sleep, which a signal that comes just before it does not end.
WAITS = RANK + "for _ in range(3000): time.sleep(0.01)"


def started(rank, **more):
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, rank], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def pids(parent):
    """The processes of the three ranks, once all of them handle signals."""
    lines = [parent.stdout.readline().split() for _ in range(3)]
    assert {(line[0], line[3]) for line in lines} == {("0", "3"), ("1", "3"), ("2", "3")}
    return {int(line[0]): int(line[2]) for line in lines}


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_ranks_know_how_many_share_the_host():
    """By this they divide its CPUs among their data workers, and the shared memory."""
    parent = started("import os; os.write(1, os.environ['LOCAL_WORLD_SIZE'].encode())")
    assert parent.communicate(timeout=30) == ("333", "") and parent.returncode == 0


def test_ranks_that_end_well_end_it_well():
    parent = started(RANK)
    out, err = parent.communicate(timeout=30)
    assert parent.returncode == 0 and not err and len(out.splitlines()) == 3


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT"])
def test_a_signal_reaches_every_rank_once(name):
    parent = started(WAITS)
    pids(parent)
    parent.send_signal(getattr(signal, name))
    out, err = parent.communicate(timeout=30)
    number = int(getattr(signal, name))
    assert sorted(out.splitlines()) == [f"{rank} heard {number}" for rank in range(3)] and not err
    assert parent.returncode == (230 if name == "SIGINT" else 175)


def test_a_terminals_ctrl_c_reaches_the_ranks_through_the_parent_only():
    parent = started(WAITS, start_new_session=True)
    assert all(os.getsid(pid) == pid for pid in pids(parent).values())
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
    out, _ = parent.communicate(timeout=30)
    assert len(out.splitlines()) == 3 and parent.returncode == 230


LEAVING = [("sys.exit(2)", 2), ("sys.exit(75)", 75), ("sys.exit(1)", 1)]


@pytest.mark.parametrize(("code", "as_code"), rest_is_slow(LEAVING, LEAVING[1]))
def test_one_rank_that_leaves_takes_the_others_along(code, as_code):
    parent = started(RANK + f"{code} if rank == 1 else time.sleep(30)")
    _, err = parent.communicate(timeout=30)
    assert parent.returncode in (as_code, as_code + 100) and not err  # it has said itself what was wrong


@pytest.mark.parametrize("cause", [75, 2, -9])
def test_a_rank_that_was_left_alone_does_not_hide_why(cause):
    left = f"sys.exit({cause})" if cause > 0 else "os.kill(os.getpid(), 9)"
    both = [subprocess.Popen([sys.executable, "-c", f"import os, sys; {how}"]) for how in ("sys.exit(1)", left)]
    assert {rank.wait() for rank in both} == {1, cause}
    assert _failed(both) == [1, 0] and LeftAlone.exit_code == 1


def test_a_stop_that_rank_0_does_not_tell_is_told():
    with pytest.raises(Stopped) as stop:
        run_ranks([sys.executable, "-c", "import os, sys; sys.exit((1, 75)[int(os.environ['RANK'])])"], 2, 1)
    assert not stop.value.told and stop.value.exit_code == 75


def test_a_rank_that_is_killed_is_named_in_one_line():
    begin = time.monotonic()
    parent = started(WAITS)
    ranks = pids(parent)
    os.kill(ranks[1], signal.SIGKILL)
    _, err = parent.communicate(timeout=30)
    assert parent.returncode == 1 and time.monotonic() - begin < 20
    assert err.count("\n") == 1 and f"rank 1 on {os.uname().nodename} (pid {ranks[1]}) was killed by SIGKILL" in err


def test_ranks_that_do_not_stop_are_killed(monkeypatch):
    deaf = RANK + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsys.exit(2) if rank == 1 else time.sleep(30)"
    code = PARENT.replace("try:", "import sslcli.distributed.local as l; l.OWN = l.GRACE = 0.2\ntry:")
    parent = subprocess.Popen([sys.executable, "-c", code, deaf], stdout=subprocess.DEVNULL)
    assert parent.wait(timeout=20) == 2


def test_ranks_end_with_a_parent_that_is_killed():
    parent = started(WAITS)
    ranks = pids(parent)
    parent.kill()
    out, _ = parent.communicate(timeout=20)  # the pipe closes when the last rank ends
    assert sorted(out.splitlines()) == [f"{rank} heard {int(signal.SIGTERM)}" for rank in range(3)]
    deadline = time.monotonic() + 20
    while any(is_alive(pid) for pid in ranks.values()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(is_alive(pid) for pid in ranks.values())
