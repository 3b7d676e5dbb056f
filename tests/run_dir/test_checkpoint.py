"""Checkpoints on disk: whole or absent, checked for damage, never unpickled."""

import errno
import os
import pickle
import resource
import signal
import stat
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from support.forked import Forked
from support.helpers import TINY, make_trainer, plain_state

from sslcli.cli import train
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint
from sslcli.run_dir.checkpoint import DamagedCheckpoint
from sslcli.run_dir.files import replacing, write_atomically, write_text
from sslcli.run_dir.metrics_jsonl import JsonLines


def save(run_dir, step, **options):
    return checkpoint.save(
        run_dir, step, plain_state(step, x=torch.arange(5000)), **{"keep": 2, "keep_every": None, **options}
    )


def test_last_names_the_newest_and_only_the_wanted_ones_stay(tmp_path):
    for step in range(10, 80, 10):
        save(tmp_path, step, keep_every=30)
    assert [checkpoint.step_of(p) for p in checkpoint.steps(tmp_path)] == [70, 60, 30]
    assert (tmp_path / "checkpoints" / "last").read_text() == "step-00000070.pt\n"


@pytest.mark.parametrize("keep_bytes", [0, 1, 100, -1000, -1])
def test_truncation_is_found_and_the_one_before_is_used(tmp_path, keep_bytes):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    path.write_bytes(path.read_bytes()[:keep_bytes])
    warnings = []
    found, state = checkpoint.newest(tmp_path, warnings.append)
    assert checkpoint.step_of(found) == state["step"] == 1
    assert len(warnings) == 1 and "step-00000002" in warnings[0]


def test_a_flipped_bit_is_found(tmp_path):
    path = save(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedCheckpoint):
        checkpoint.load(path)
    with pytest.raises(UserError, match="resume=never"):
        checkpoint.newest(tmp_path, lambda _: None)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"format": 1, "x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="not opened: it asks for .*open"):
        checkpoint.load(tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"format": 1}))
    with pytest.raises(DamagedCheckpoint):
        checkpoint.load(tmp_path / "plain.pt")
    assert not (tmp_path / "owned").exists()


def test_a_newer_format_is_refused(tmp_path):
    torch.save({"format": 99, "version": "9.9"}, tmp_path / "new.pt")
    with pytest.raises(UserError, match="Update"):
        checkpoint.load(tmp_path / "new.pt")


def test_a_checkpoint_of_a_run_is_plain(tmp_path):
    trainer = make_trainer(tmp_path, *TINY)
    trainer.fit()
    state = torch.load(checkpoint.steps(tmp_path)[0], weights_only=True)
    for key in ("version", "config", "environment", "step", "seconds", "encoder", "objective", "optimizer"):
        assert key in state
    assert {"torch", "threads", "commit", "command", "precision"} <= state["environment"].keys()


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "a"
    write_text(path, "old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_system_that_cannot_sync_folders_is_written_to(tmp_path, monkeypatch):
    """Some network file systems refuse it; to sync files they can."""
    synced, fsync = [], os.fsync

    def refuse_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        synced.append(fsync(descriptor))

    monkeypatch.setattr(os, "fsync", refuse_folders)
    save(tmp_path, 1)
    write_text(tmp_path / "page.html", "text")
    assert len(synced) == 4 and checkpoint.load(checkpoint.path_of(tmp_path, 1))["step"] == 1


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path):
    lines = JsonLines(tmp_path / "m.jsonl")
    for step in (1, 2, 3, 4):
        lines.write({"step": step})
    with lines.path.open("a") as file:
        file.write('{"step": 5, "lo')  # a kill cut this line short
    lines.cut_back(3)
    lines.write({"step": 4})
    assert lines.path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 4}\n'


@pytest.mark.parametrize("lr", ["1e30", "1e4"])
def test_a_loss_that_stays_non_finite_stops_and_saves_nothing_broken(tmp_path, lr):
    options = (*TINY, "train.steps=200", f"optimizer.lr={lr}", "schedule=constant", "checkpoint.every=1",
               "objective.norm=none", "encoder=mlp", "optimizer=sgd", "train.precision=fp32")  # fmt: skip
    trainer = make_trainer(tmp_path, *options)
    with pytest.raises(UserError, match="not finite, and since step .* Lower optimizer.lr"):
        trainer.fit()
    for path in checkpoint.steps(tmp_path):
        state = checkpoint.load(path)
        assert all(v.isfinite().all() for v in state["encoder"].values())


def test_a_damaged_later_checkpoint_does_not_push_out_good_ones(tmp_path):
    save(tmp_path, 200)
    save(tmp_path, 400).write_bytes(b"cut short")
    save(tmp_path, 250, keep=1)
    found, _ = checkpoint.newest(tmp_path, lambda _: None)
    assert checkpoint.step_of(found) == 250


def test_other_files_beside_checkpoints_are_ignored(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoints" / "step-best.pt").write_bytes(b"")
    assert [p.name for p in checkpoint.steps(tmp_path)] == ["step-00000001.pt"]


@pytest.mark.parametrize("content", [{"x": 1}, {"format": "a"}, [1]])
def test_a_file_of_something_else_is_whole_and_so_no_older_one_takes_its_place(tmp_path, content):
    save(tmp_path, 1)
    torch.save(content, checkpoint.path_of(tmp_path, 2))
    with pytest.raises(UserError, match="step-00000002.pt is not a checkpoint of this tool") as refused:
        checkpoint.newest(tmp_path, pytest.fail)
    assert not isinstance(refused.value, DamagedCheckpoint)


@contextmanager
def limit(kind, value):
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_too_many_open_files_say_nothing_about_a_checkpoint(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    with limit(resource.RLIMIT_NOFILE, 0), pytest.raises(UserError, match="cannot be read: Too many") as refused:
        checkpoint.load(path)
    assert not isinstance(refused.value, DamagedCheckpoint)


def test_too_little_memory_says_nothing_about_a_checkpoint(tmp_path):
    """In a process of its own, which has what it needs, and no room for one more tensor of 256 MB."""
    save(tmp_path, 1)
    path = checkpoint.save(tmp_path, 2, plain_state(2, x=torch.zeros(1 << 26)), keep=2, keep_every=None)

    def started():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 27),) * 2)
        with pytest.raises(UserError, match=f"{path.name} cannot be read: there is not enough memory"):
            checkpoint.newest(tmp_path, pytest.fail)

    process = Forked(started, "any")
    assert process.wait() == 0, process.communicate()[0]


@pytest.mark.slow
def test_the_threads_of_the_first_start_are_recorded_after_resuming(tmp_path):
    """A resumed run computes with the checkpoint's thread count and must record that one."""
    options = (*TINY, "encoder=mlp", "probe=none", "log.report=false", f"run_dir={tmp_path / 'r'}", "device=cpu")
    for threads, steps in (("2", "2"), ("1", "4")):

        def started(threads=threads):
            os.environ["OMP_NUM_THREADS"] = threads
            train()

        process = Forked(started, "ssl-train", *options, f"train.steps={steps}")
        assert process.wait() == 0, process.communicate()[0]
    assert checkpoint.newest(tmp_path / "r", print)[1]["environment"]["threads"] == 2


def test_a_full_disk_is_told_and_the_last_checkpoint_stands(tmp_path):
    def started():
        resource.setrlimit(resource.RLIMIT_FSIZE, (102_400, 102_400))  # of any one file
        train()

    options = ("debug=tiny", "probe=none", f"run_dir={tmp_path / 'r'}", "encoder.width=64", "device=cpu")
    process = Forked(started, "ssl-train", *options)
    code, output = process.wait(), process.communicate()[0]
    assert code == 2 and "cannot be written" in output and "Traceback" not in output


def killed_while_writing(path):
    """Leaves what a process leaves that is killed in the middle."""

    def started():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert Forked(started, "any").wait() == -signal.SIGKILL


def test_two_processes_write_into_files_of_their_own(tmp_path):
    with replacing(tmp_path / "eval.json") as temporary:
        assert temporary.suffix == ".json" and str(os.getpid()) in temporary.name
        temporary.write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["eval.json"]


def test_what_a_killed_writer_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    killed_while_writing(tmp_path / "checkpoints" / "step-00000003.pt")
    killed_while_writing(tmp_path / "result.json")
    (tmp_path / f".result.tmp.{os.getpid()}.json").write_text("half")  # in a container the next process has this id
    (tmp_path / f".eval.tmp.{os.getppid()}.json").write_text("half")  # an evaluation at the same time
    assert len(list(tmp_path.rglob(".*"))) == 4
    checkpoint.sweep_temporaries(tmp_path)
    assert [path.name for path in tmp_path.rglob(".*")] == [f".eval.tmp.{os.getppid()}.json"]
