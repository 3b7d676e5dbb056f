"""What the process does with signals that come early, streams that go away, and packages that cannot be imported."""

import ast
import contextlib
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from support.forked import Forked

from sslcli import cli, signals
from sslcli.run_dir.streams import make_lenient

ASKS_TO_STOP = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


def killed_by(signum, before):
    signal.signal(signum, before)
    signals.leave_early()
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize("signum", ASKS_TO_STOP)
def test_a_signal_leaves_with_75_before_anything_is_imported(signum):
    process = Forked(lambda: killed_by(signum, signal.SIG_DFL), "ssl-train")
    output, _ = process.communicate()
    assert process.returncode == 75
    assert output == f"ssl-train: stopped by {signal.Signals(signum).name}; nothing was changed\n"


def test_under_nohup_a_hangup_stays_ignored():
    def entry():
        killed_by(signal.SIGHUP, signal.SIG_IGN)
        signals.install()
        os.kill(os.getpid(), signal.SIGHUP)

    assert Forked(entry, "ssl-train").wait() == 0


def test_signals_are_handled_from_the_first_line_on():
    docstring, future, imported, first, *_ = ast.parse(Path(cli.__file__).read_text()).body
    assert ast.unparse(imported) == "from sslcli import signals" and ast.unparse(first) == "signals.leave_early()"
    assert {name for name in signals.__dict__ if name in sys.stdlib_module_names} == {
        "contextlib", "os", "signal", "sys",
    }  # fmt: skip


@pytest.mark.parametrize(
    "place, arguments",
    [("sslcli.config.part_help.text", ["--help"]), ("sslcli.data.pictures.file_index.scan", ["dataset=images"])],
    ids=["reading the config", "listing a folder"],
)
def test_a_signal_while_nothing_is_to_be_saved_leaves_with_75(tmp_path, monkeypatch, place, arguments):
    def kill(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was not obeyed")

    monkeypatch.setattr(place, kill)
    process = Forked(cli.train, "ssl-train", *arguments, f"+dataset.path={tmp_path}", f"run_dir={tmp_path}/run")
    output, _ = process.communicate()
    assert process.returncode == 75 and "stopped by SIGTERM" in output and "Traceback" not in output, output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("deferring, said", [(True, "stopping after this step, which is saved"), (False, "stopping")])
def test_a_signal_is_answered_at_once_whatever_runs(deferring, said):
    """Python's own handler waits until the function in C returns, which takes half a minute here."""

    def entry():
        signals.install()
        with signals.deferred() if deferring else contextlib.nullcontext():
            print("begun")
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**25)

    process = Forked(entry, "ssl-train")
    while "begun" not in process.output():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    while f"ssl-train: SIGINT: {said}" not in process.output():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()


def gone_reader():
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)


def full_disk():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def closed():
    os.close(1)


@pytest.mark.parametrize("break_stream", [gone_reader, full_disk, closed])
def test_a_stream_that_goes_away_ends_nothing(tmp_path, break_stream):
    def entry():
        break_stream()
        sys.stdout = sys.__stdout__ = None if break_stream is closed else os.fdopen(1, "w", closefd=False)
        if break_stream is full_disk:  # a whole run in one of the cases
            cli.train()
        make_lenient()
        for _ in range(3):
            print("x" * 100_000, flush=True)
        assert os.open(tmp_path, os.O_RDONLY) > 2

    options = ("debug=tiny", "train.steps=2", "probe=none", "log.report=false", f"run_dir={tmp_path}/run", "device=cpu")
    process = Forked(entry, "ssl-train", *options)
    output, _ = process.communicate()
    assert process.returncode == 0 and "Traceback" not in output, output
    assert break_stream is not full_disk or (tmp_path / "run" / "result.json").is_file()


BROKEN = {
    "raise RuntimeError('boom')": "RuntimeError: boom",
    "def f(:": "SyntaxError: invalid syntax (broken.py, line 1)",
    "import sys; sys.exit(3)": "SystemExit: 3",
    "import nothere": "ModuleNotFoundError: No module named 'nothere'",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_plug_in_that_cannot_be_imported_is_one_line(run, tmp_path, code, monkeypatch):
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    exit_code, out, err = run("plugins=[broken]", "debug=tiny")
    assert (exit_code, out) == (2, "")
    assert err == (
        f"ssl-train: error: plugins: 'broken' cannot be imported ({BROKEN[code]}). Mend it, or leave it out.\n"
    )
