"""Of two starts of a run that are alive at once the newest one writes, and the other one writes nothing more."""

import errno
import fcntl
import os
import time
from dataclasses import replace

import pytest
from support.forked import Forked

from sslcli import signals
from sslcli.errors import StartAgain, UserError
from sslcli.run_dir import inside
from sslcli.run_dir.lock import locked
from sslcli.run_dir.owner import NAME, Owner, Superseded, read_owner, write_owner

SLURM = {"SLURM_JOB_ID": "7"}
FIRST = replace(Owner.here(SLURM), host="n1", pid=11)
SECOND = Owner.here({**SLURM, "SLURM_RESTART_COUNT": "1"})
STRANGER = replace(Owner.here({}), host="n3", pid=33)
LOOK = 0.02


@pytest.fixture(autouse=True)
def no_signal_is_left():
    yield
    signals._pending = None


def test_only_a_later_start_of_the_same_job_follows():
    assert SECOND.follows(FIRST) and not FIRST.follows(SECOND) and not SECOND.follows(SECOND)
    assert not SECOND.follows(replace(FIRST, job="8"))
    assert not replace(STRANGER, restart=1).follows(STRANGER)  # without Slurm there are no jobs


def test_a_superseded_start_writes_nothing_and_ends(tmp_path):
    message = "is written by .*, start 2 of job 7. This process, n1 pid 11"
    with pytest.raises(Superseded, match=message) as raised, locked(tmp_path, FIRST, look=LOOK):
        inside.write_text(tmp_path, "result.json", "of the first")
        another = Forked(lambda: announce(tmp_path, SECOND), "ssl-train")
        while not signals.pending():  # the thread that looks has seen it
            time.sleep(0.001)
        another.kill()
        another.wait()
        for write in (inside.write_text, lambda *file: inside.append(*file[:2], b"2\n")):
            with pytest.raises(Superseded):
                write(tmp_path, "result.json", "of the first, again")
        signals.raise_held(signals.pending())
    assert raised.value.exit_code == 75
    assert (tmp_path / "result.json").read_text() == "of the first"
    assert read_owner(tmp_path) == SECOND


def announce(run_dir, owner):
    """As another process does it, to which the checks of this one do not apply."""
    inside._checks.clear()
    while True:
        write_owner(run_dir, owner)
        time.sleep(0.05)


def test_a_start_that_the_newest_one_has_survived_writes_nothing_either(tmp_path):
    with pytest.raises(Superseded, match="nobody any more"), locked(tmp_path, FIRST):
        (tmp_path / NAME).unlink()  # the newest one has come and gone while this one was suspended


def test_the_younger_waits_until_the_older_has_seen_it(tmp_path):
    def older():
        with locked(tmp_path, FIRST, look=LOOK):
            while True:
                inside.append(tmp_path, "steps", b"older\n")

    process = Forked(older, "ssl-train")
    while not (tmp_path / "steps").exists():
        time.sleep(0.001)
    with locked(tmp_path, SECOND, seconds=60):
        before = (tmp_path / "steps").read_bytes()
        assert "Superseded" in process.communicate()[0]
        inside.append(tmp_path, "steps", b"younger\n")
        assert (tmp_path / "steps").read_bytes() == before + b"younger\n"
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    "mine, error, message",
    [
        (SECOND, StartAgain, r"is still in use by n1 pid 11, start 1 of job 7, after 0 s \(device.meet_s\)"),
        (STRANGER, UserError, "is in use by .* pid .*Wait for it, stop it"),
        (FIRST, UserError, "is in use by"),
    ],
    ids=["the same job", "another", "the same start"],
)
def test_a_holder_that_does_not_end_is_not_overruled(tmp_path, mine, error, message):
    def deaf():
        with locked(tmp_path, FIRST):
            print("locked", flush=True)
            time.sleep(60)

    process = Forked(deaf, "ssl-train")
    while "locked" not in process.output():
        time.sleep(0.001)
    with pytest.raises(UserError, match=message) as raised, locked(tmp_path, mine):
        raise AssertionError("it was overruled")
    assert type(raised.value) is error
    process.kill()
    process.wait()


@pytest.mark.parametrize("code", [errno.ENOLCK, None], ids=["no locks", "locks that do not reach another host"])
def test_where_locks_do_not_reach_the_number_of_the_start_decides(tmp_path, monkeypatch, code):
    def refused(*_):
        raise OSError(code, os.strerror(code))

    if code:
        monkeypatch.setattr(fcntl, "lockf", refused)
    write_owner(tmp_path, FIRST)
    with pytest.raises(UserError, match="is in use by n1 pid 11, start 1 of job 7"), locked(tmp_path, STRANGER):
        raise AssertionError("it was overruled")
    with locked(tmp_path, SECOND, look=LOOK):
        assert read_owner(tmp_path) == SECOND
    (tmp_path / NAME).write_text(f'{{"host": "n1", "pid": 11, "heartbeat": {time.time() - 60}}}')
    with locked(tmp_path, STRANGER):  # the other one is dead
        assert read_owner(tmp_path) == STRANGER


def dead_pid():
    """The number of a process that has ended, and for which nobody has waited."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def test_what_ends_because_its_sweep_was_killed_is_waited_for(tmp_path):
    """A job saves after the sweep has died, and the same command may come before it is done."""
    assert Owner.here({"SSLCLI_SWEEP": "5", "SSLCLI_PARENT": "6"}).parent == 5  # a rank of a sweep's job

    def job(parent):
        with locked(tmp_path, replace(Owner.here({}), parent=parent)):
            while not (tmp_path / "go").exists():
                time.sleep(0.001)
            time.sleep(0.1)
            inside.write_text(tmp_path, "saved", "")

    for parent in (os.getpid(), dead_pid()):
        process = Forked(lambda: job(parent), "ssl-train")  # noqa: B023
        while read_owner(tmp_path) is None:
            time.sleep(0.001)
        if parent == os.getpid():
            with pytest.raises(UserError, match="is in use by"), locked(tmp_path, Owner.here({}), seconds=60):
                pass
        (tmp_path / "go").touch()
        if parent != os.getpid():
            with locked(tmp_path, Owner.here({}), seconds=60):
                assert (tmp_path / "saved").exists()
            os.waitpid(parent, 0)
        assert process.wait() == 0
        for name in ("go", "saved"):
            (tmp_path / name).unlink()
