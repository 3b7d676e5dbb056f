"""A run that is killed at any instant and started again with the same command ends in the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.forked import Forked
from support.helpers import TINY, hook_of, make_trainer
from support.marks import rest_is_slow

from sslcli import signals
from sslcli.cli import train
from sslcli.run_dir import checkpoint
from sslcli.training.checkpoints import Checkpoints
from sslcli.training.hooks import Hook

TIMINGS = {"samples_per_second", "data_wait"}
STEPS = 40
COMMAND = [
    "train.batch_size=16", f"train.steps={STEPS}", "checkpoint.every=2", "log.every=3",
    "probe=none", "device=cpu", "device.threads=1", "log.report=false",
]  # fmt: skip
SIZE = "dataset.size=16"
SYNTHETIC = ["dataset=synthetic", "dataset.num_samples=200"]
TEXTS = ["dataset=text", "dataset.pair=title", "encoder=text_transformer", "encoder.hidden_dim=16", "encoder.depth=1"]
VECTORS = ["dataset=vectors", "dataset.name=digits", "encoder=mlp", "encoder.hidden_dim=16"]
HISTORIES = ["experiment=cl4srec", "dataset=interactions", "encoder.hidden_dim=16", "encoder.depth=1"]


def arguments(run_dir: Path, *extra: str) -> list[str]:
    data = [] if any(word.startswith("dataset=") for word in extra) else SYNTHETIC
    size = [] if {TEXTS[0], VECTORS[0], HISTORIES[1]} & set(extra) else [SIZE]
    return [*data, *size, *COMMAND, f"run_dir={run_dir}", *extra]


def start(run_dir: Path, *extra: str) -> Forked:
    """The command in a process of its own."""
    return Forked(train, "ssl-train", *arguments(run_dir, *extra))


def start_python(run_dir: Path, *extra: str) -> subprocess.Popen:
    """The command as a user starts it: another interpreter, with hash seeds of its own."""
    command = [sys.executable, "-c", "from sslcli.cli import train; train()", *arguments(run_dir, *extra)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(run_dir: Path, *extra: str, begin=start) -> str:
    process = begin(run_dir, *extra)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def wait_for_step(run_dir: Path, step: int, process) -> None:
    """Return when a checkpoint of ``step`` or later is there, or the process has ended."""
    while process.poll() is None:
        found = checkpoint.steps(run_dir) if run_dir.is_dir() else []
        if found and checkpoint.step_of(found[0]) >= step:
            return
        time.sleep(0.002)


def metrics(run_dir: Path) -> list[dict]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def tensors(node, prefix=""):
    if isinstance(node, torch.Tensor):
        yield prefix, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from tensors(value, f"{prefix}/{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from tensors(value, f"{prefix}/{i}")


def assert_same_run(a: Path, b: Path) -> None:
    last = [checkpoint.load(p / "checkpoints" / (p / "checkpoints" / "last").read_text().strip()) for p in (a, b)]
    assert [state["step"] for state in last] == [STEPS, STEPS]
    first, second = (dict(tensors({k: s[k] for k in ("encoder", "objective", "optimizer", "scaler")})) for s in last)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    assert metrics(a) == metrics(b)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(run_dir)
    return run_dir


def kill_and_restart(run_dir: Path, kills: int, rng: random.Random, *extra: str, begin=start) -> None:
    """Kill -9 ``kills`` times, each at a random instant once training is under way, then let it finish."""
    for k in range(kills):
        process = begin(run_dir, *extra)
        wait_for_step(run_dir, 2 + k * (STEPS - 6) // kills, process)
        time.sleep(rng.random() * 0.1)
        process.kill()
        process.communicate()
    finish(run_dir, *extra, begin=begin)


def test_killed_run_ends_in_the_same_bits(undisturbed, tmp_path):
    kill_and_restart(tmp_path / "run", 3, random.Random(0))
    assert_same_run(undisturbed, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("views", ["token_crop", "pairs", "dropout"])
def test_a_killed_run_on_texts_ends_in_the_same_bits(tmp_path, views):
    """With dropout, words hidden and exchanged, and batches of several widths."""
    rows = [(f"w{i % 7} w{i % 11}", " ".join(f"w{i * j % 97}" for j in range(3 + i % 40))) for i in range(200)]
    (tmp_path / "texts.tsv").write_text("title\ttext\n" + "".join(f"{title}\t{text}\n" for title, text in rows))
    options = (*TEXTS, f"dataset.path={tmp_path}/texts.tsv", "objective=joint_tokens", f"views={views}")
    options = (*options, "train.accumulate=2")
    finish(tmp_path / "undisturbed", *options)
    kill_and_restart(tmp_path / "run", 2, random.Random(0), *options)
    assert_same_run(tmp_path / "undisturbed", tmp_path / "run")


@pytest.mark.slow
def test_a_killed_run_on_vectors_ends_in_the_same_bits(tmp_path):
    """With values of other rows, which are read from the run's own files."""
    options = (*VECTORS, "views=scarf", "train.accumulate=2")
    finish(tmp_path / "undisturbed", *options)
    kill_and_restart(tmp_path / "run", 2, random.Random(0), *options)
    assert_same_run(tmp_path / "undisturbed", tmp_path / "run")


@pytest.mark.slow
def test_a_killed_run_on_histories_ends_in_the_same_bits(tmp_path):
    """With dropout, histories that are cropped, hidden and shuffled, and ids that are read from the run's own files."""
    rows = [f"u{user},i{(user + place * (1 + user % 3)) % 20},{place}" for user in range(40) for place in range(12)]
    (tmp_path / "table.csv").write_text("\n".join(["user,item,time", *rows]))
    options = (*HISTORIES, f"dataset.path={tmp_path}/table.csv", "train.accumulate=2")
    finish(tmp_path / "undisturbed", *options)
    kill_and_restart(tmp_path / "run", 2, random.Random(0), *options)
    assert_same_run(tmp_path / "undisturbed", tmp_path / "run")


PAIRS = ["dataset=interactions", "encoder.dim=8", "train.accumulate=2"]
LAYERS = ["encoder.layers=2", "encoder.noise=0.1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        (*LAYERS, "objective=infonce_nodes"),
        (*LAYERS, "objective=joint_nodes", "views.noise=added"),
        ("encoder=towers", "objective=bpr", "dataset.user_features=users.csv"),
    ],
)
def test_a_killed_run_on_a_graph_ends_in_the_same_bits(tmp_path, parts, monkeypatch):
    """Of the second, BPR with drawn negatives beside two noisy passes a step; of the third, features."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.csv").write_text("user,age\n" + "".join(f"u{u},{u * u % 7}\n" for u in range(20)))
    pairs = [(u, i) for u in range(20) for i in range(12) if (u * i + u) % 3]
    (tmp_path / "pairs.csv").write_text("user,item\n" + "".join(f"u{u},i{i}\n" for u, i in pairs))
    options = (*PAIRS, f"dataset.path={tmp_path / 'pairs.csv'}", *parts)
    finish(tmp_path / "undisturbed", *options)
    kill_and_restart(tmp_path / "run", 2, random.Random(0), *options)
    assert_same_run(tmp_path / "undisturbed", tmp_path / "run")


@pytest.mark.slow
def test_thirty_kills_also_during_saves(undisturbed, tmp_path):
    kill_and_restart(tmp_path / "run", 30, random.Random(1), "checkpoint.every=1")
    assert_same_run(undisturbed, tmp_path / "run")


def dying(place: str):
    """A command that kills itself in its first save: before or after the file has its name, or after its pointer."""

    def started():
        rename = os.replace

        def replace(source, target, **options):
            saves = {"before the file": "step-", "between file and pointer": "step-", "after the pointer": "last"}
            due = str(target).startswith(saves[place])
            if not (due and place == "before the file"):
                rename(source, target, **options)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace
        train()

    return started


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_kills_between_a_checkpoint_and_its_pointer(undisturbed, tmp_path, kills):
    """Each session saves once and is killed in the middle of it; the file may be newer than its pointer says."""
    run_dir, step, named = tmp_path / "run", 0, None
    for k in range(kills):
        place = ("between file and pointer", "before the file", "after the pointer")[k % 3]
        process = Forked(dying(place), "ssl-train", *arguments(run_dir, "checkpoint.every=1"))
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        step += place != "before the file"
        named = f"step-{step:08d}.pt\n" if place == "after the pointer" else named
        pointer = run_dir / "checkpoints" / "last"
        assert checkpoint.step_of(checkpoint.steps(run_dir)[0]) == step
        assert (pointer.read_text() if pointer.is_file() else None) == named
    finish(run_dir)
    assert_same_run(undisturbed, run_dir)
    assert not [*run_dir.rglob(".*.tmp*")]


@pytest.mark.slow
def test_kills_of_a_watched_run(undisturbed, tmp_path):
    """Evaluations change no bit of training, and killed or not, the same step is the best."""
    evaluated = ("probe.every=3", "probe.share=null", "checkpoint.keep_best=rankme")
    finish(tmp_path / "whole", *evaluated, begin=start_python)
    kill_and_restart(tmp_path / "killed", 5, random.Random(3), *evaluated)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    best = [(tmp_path / run / "checkpoints" / "best").read_text() for run in ("whole", "killed")]
    assert best[0] == best[1]
    states = [checkpoint.newest(run, print)[1] for run in (tmp_path / "whole", undisturbed)]
    weights = [dict(tensors({"encoder": state["encoder"]})) for state in states]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.slow
@pytest.mark.parametrize("crop", ["device", "worker"])
def test_kills_while_workers_read_a_folder_with_damaged_pictures(tmp_path, crop):
    """Five kills with two workers, against a run that nobody disturbed and that read in its own process."""
    generator = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(100):
        pixels = generator.integers(0, 256, (20 + i % 7, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{i}.{'png' if i % 2 else 'jpg'}")
    for i in (3, 50):
        (pictures / f"{i}.png").write_bytes(b"damaged")
    data = ("dataset=images", f"dataset.path={pictures}", f"dataset.crop={crop}")
    finish(tmp_path / "undisturbed", *data, "dataset.workers=0")
    kill_and_restart(tmp_path / "run", 5, random.Random(2), *data, "dataset.workers=2", "checkpoint.every=1")
    assert_same_run(tmp_path / "undisturbed", tmp_path / "run")
    lists = [sorted((tmp_path / run / "bad_samples.txt").read_text().splitlines()) for run in ("undisturbed", "run")]
    assert lists[0] == lists[1] and len(lists[0]) == 2


SIGNALS = [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGUSR1, 75)]


@pytest.mark.parametrize("signum, code", rest_is_slow(SIGNALS, SIGNALS[0]))
def test_signal_saves_the_step_and_exits_with_its_code(undisturbed, tmp_path, signum, code):
    run_dir = tmp_path / "run"
    process = start(run_dir, "checkpoint.every=1000000")
    while process.poll() is None and not (run_dir / "metrics.jsonl").is_file():
        time.sleep(0.002)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Traceback" not in output
    step = checkpoint.step_of(checkpoint.steps(run_dir)[0])
    assert 0 < step < STEPS
    assert f"stopped at step {step}, saved checkpoints/step-{step:08d}.pt; the same command continues\n" in output
    assert "resuming" in finish(run_dir)
    assert_same_run(undisturbed, run_dir)


def test_signal_before_training_leaves_quietly(tmp_path):
    process = start_python(tmp_path / "run")
    time.sleep(0.7)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode in (75, -signal.SIGTERM), output
    assert "Traceback" not in output


def test_signal_that_a_library_swallows_is_no_bug_of_ours(tmp_path):
    """An import that is cut in two may keep the exception to itself and fail over what is missing only later."""
    code = """
import os, signal, sys, time
from sslcli import cli

def task(config):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except BaseException:
        pass
    raise AttributeError("half imported")

cli._main("train", task)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 75, done.stderr
    assert "stopped by SIGTERM" in done.stderr and "Traceback" not in done.stderr


def test_finished_run_says_so(undisturbed):
    before = (undisturbed / "result.json").stat().st_mtime_ns
    output = finish(undisturbed)
    assert "is finished" in output and "resume=never" in output
    assert (undisturbed / "result.json").stat().st_mtime_ns == before


def test_second_live_run_is_refused_and_a_dead_owner_is_not(tmp_path):
    run_dir = tmp_path / "run"
    first = start(run_dir, "train.steps=100000")
    wait_for_step(run_dir, 2, first)
    second = start(run_dir, "train.steps=100000")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 2
    assert f"pid {first.pid}" in output
    first.kill()
    first.communicate()
    third = start(run_dir, "train.steps=100000")
    wait_for_step(run_dir, 10**9 if third.poll() is not None else 1, third)
    time.sleep(1)
    assert third.poll() is None or third.returncode == 0
    third.kill()
    third.communicate()


def test_resuming_in_one_process_is_exact(tmp_path):
    whole = make_trainer(tmp_path, *TINY, "train.steps=8", "train.accumulate=2")
    whole.run_dir = tmp_path
    whole.fit()
    first = make_trainer(tmp_path / "b", *TINY, "train.steps=8", "train.accumulate=2")
    (tmp_path / "b").mkdir()
    batches = first.loader.batches(0)
    for _ in range(3):
        first.train_step(next(batches))
    hook_of(first, Checkpoints).save(first)
    path = checkpoint.steps(tmp_path / "b")[0]
    second = make_trainer(tmp_path / "b", *TINY, "train.steps=8", "train.accumulate=2")
    second.load_state_dict(checkpoint.load(path))
    second.fit()
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(value, second.encoder.state_dict()[name]), name


def test_a_signal_during_the_last_save_is_not_lost(tmp_path):
    before = {s: signal.getsignal(s) for s in signals.HANDLED}
    signals.install()
    trainer = make_trainer(tmp_path, *TINY)

    class ToldAfterSaving(Hook):
        def write(self, trainer):
            if trainer.ends:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer.hooks.append(ToldAfterSaving())
    try:
        with pytest.raises(signals.Stopped, match="SIGTERM"):
            trainer.fit()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert trainer.step == 3 and checkpoint.steps(tmp_path)
