"""Two processes of one run: one writes, both stop, and a killed run ends in the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.forked import Forked
from support.helpers import each_rank, start_two

from sslcli.cli import train

pytestmark = pytest.mark.slow
OPTIONS = [
    "debug=tiny", "encoder.norm=layer", "objective=moco", "objective.queue=64", "train.steps=60", "log.every=5",
    "checkpoint.every=5", "probe=none", "log.report=false",
]  # fmt: skip
COMMAND = [sys.executable, "-c", "from sslcli.cli import train; train()", *OPTIONS]  # loads its libraries anew


def launch(folder: Path, *overrides: str) -> list[Forked]:
    options = [*OPTIONS, f"run_dir={folder}", *overrides]
    return [Forked(train, "ssl-train", *options, environment=ranks) for ranks in each_rank()]


def finish(workers: list) -> list[tuple[int, str, str | None]]:
    """Return the exit code and the output of each; a ``Forked`` has its errors in the output, too."""
    ended = [(*worker.communicate(timeout=200), worker.returncode) for worker in workers]
    return [(code, out, err) for out, err, code in ended]


def when_saved(folder: Path, step: int) -> None:
    end = time.monotonic() + 100
    while not any((folder / "checkpoints").glob(f"step-{step:08d}.pt")):
        assert time.monotonic() < end, "no checkpoint came"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    first, second = finish(start_two([*COMMAND, f"run_dir={folder}"], OMP_NUM_THREADS="1"))
    assert first[0] == second[0] == 0, (first, second)
    return folder, first, second


def state(folder):
    return torch.load(folder / "checkpoints" / "step-00000060.pt", weights_only=True)


def same_bits(one, two):
    for part in ("encoder", "objective"):
        assert all(torch.equal(one[part][name], two[part][name]) for name in one[part])


def test_one_process_speaks_and_writes(whole):
    folder, first, second = whole
    assert "2 processes" in first[1] and second[1] == ""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 12
    assert state(folder)["environment"]["ranks"] == 2


def test_a_killed_run_ends_in_the_same_bits(whole, tmp_path):
    workers = launch(tmp_path / "run")
    when_saved(tmp_path / "run", 10)
    for worker in workers:
        worker.kill()
    finish(workers)
    assert not (tmp_path / "run" / "result.json").exists()
    ended = finish(launch(tmp_path / "run"))
    assert [e[0] for e in ended] == [0, 0], ended
    assert "resuming" in ended[0][1]
    same_bits(state(tmp_path / "run"), state(whole[0]))


def test_a_signal_to_one_process_stops_both_after_the_same_step(whole, tmp_path):
    workers = launch(tmp_path / "run")
    when_saved(tmp_path / "run", 5)
    workers[1].send_signal(signal.SIGTERM)
    ended = finish(workers)
    assert [e[0] for e in ended] == [75, 75], ended
    ended = finish(launch(tmp_path / "run"))
    assert [e[0] for e in ended] == [0, 0], ended
    same_bits(state(tmp_path / "run"), state(whole[0]))


def test_looking_changes_nothing_and_patience_stops_both(whole, tmp_path):
    looks = ("probe.every=10", "probe.share=null", "checkpoint.keep_best=rankme")
    ended = finish(launch(tmp_path / "run", *looks))
    assert [e[0] for e in ended] == [0, 0], ended
    same_bits(state(tmp_path / "run"), state(whole[0]))
    assert (tmp_path / "run" / "checkpoints" / "best").is_file() and ended[1][1] == ""
    ended = finish(launch(tmp_path / "stopped", *looks, "optimizer.lr=0", "probe.patience=2"))
    assert [e[0] for e in ended] == [0, 0], ended
    assert "stopped early at step 30" in ended[0][1]


def test_a_mistake_is_told_once(tmp_path):
    command = [*COMMAND, f"run_dir={tmp_path / 'run'}", "train.batch_size=33"]
    ended = finish(start_two(command, OMP_NUM_THREADS="1"))
    assert [e[0] for e in ended] == [2, 2]
    assert "not a multiple of 2 processes" in ended[0][2] and ended[1][2] == ""


def test_other_commands_are_one_process(tmp_path):
    ended = finish(start_two([sys.executable, "-m", "sslcli", "eval", f"run={tmp_path}"]))
    assert [e[0] for e in ended] == [2, 2]
    assert "torchrun started 2 processes, and ssl-eval is one" in ended[0][2] and ended[1][2] == ""


def test_what_only_the_first_process_finds_stops_both(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step-00000001.pt").write_bytes(b"no checkpoint")
    ended = finish(launch(tmp_path / "run"))
    assert [e[0] for e in ended] == [2, 2], ended
    assert "can be read" in ended[0][1] and ended[1][1] == ""


def test_device_num_starts_both_and_one_that_is_killed_is_named(whole, tmp_path):
    def start():
        command = [*COMMAND, f"run_dir={tmp_path / 'run'}", "device.num=2", "device.threads=1"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    parent = start()
    when_saved(tmp_path / "run", 5)
    parent.send_signal(signal.SIGUSR1)
    ((code, _, err),) = finish([parent])
    assert code == 75 and err.count("stopped at step") == 1, err

    parent = start()
    when_saved(tmp_path / "run", 30)
    ranks = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    os.kill(int(ranks[1]), signal.SIGKILL)
    ((code, _, err),) = finish([parent])
    assert code == 1 and err.count("error:") == 1 and f"(pid {ranks[1]}) was killed by SIGKILL" in err, err

    ((code, out, err),) = finish([start()])
    assert code == 0 and "2 processes" in (tmp_path / "run" / "train.log").read_text(), (out, err)
    same_bits(state(tmp_path / "run"), state(whole[0]))
