"""``plan=true``: what a run would cost, and that nothing is written; ``train.accumulate=auto``."""

import mmap
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from commands.test_replay import tree
from PIL import Image
from support.helpers import TINY, compose, plain_state

from sslcli.commands.accumulate import fewest_that_fit, settle_pieces
from sslcli.commands.fresh_process import Fresh, Task, in_fresh_process, measured
from sslcli.commands.plan import built, made_plan
from sslcli.commands.plan_lines import disk, kept_checkpoints, plan_lines
from sslcli.commands.sweep import check_launcher
from sslcli.components import build_components
from sslcli.config.identity import settings
from sslcli.config.origin import Origin
from sslcli.config.sections import CheckpointSection
from sslcli.data.disk_cache import cache_dir
from sslcli.distributed.ranks import Ranks
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint
from sslcli.run_dir.layout import read_config
from sslcli.training.device import choose
from sslcli.training.plan_memory import Cost, Line, Peak, fewest_pieces, through

ALONE = ("encoder.norm=layer", "objective.norm=layer")  # samples of a batch do not depend on each other
CPU = ("device=cpu", "device.threads=1", "train.precision=fp32")


def cost(batch, peak, pieces=1):
    return Cost(batch, pieces, 0.001, peak, 1, 1000)


def fresh(config, make):
    return Fresh(config, build_components(config), choose("cpu", "fp32"), 1, make)


def by_line(asked, base=5000, each=100):
    """Stands for a machine on which memory is exactly this line."""

    def make(task):
        train = task.config.train
        asked.append((train.batch_size, train.num_micro))
        return cost(train.batch_size, base + each * train.batch_size // train.num_micro, train.num_micro)

    return make


def test_two_batches_give_the_line_and_the_line_the_largest_batch():
    line = through(cost(8, 1800), cost(16, 2600))
    assert line == Line(1000, 100) and line.at(256) == 26600
    assert line.most(3099) == 20 and line.most(3100) == 21 and line.most(500) == 0
    flat = through(cost(8, 1000), cost(16, 990))
    assert flat.at(1000) == 990 and flat.most(10**9) is None


def test_the_fewest_micro_batches_are_those_of_a_search_by_hand():
    line = Line(1000, 100)
    for own, limit in ((24, 1000), (24, 1150), (24, 1700), (24, 2200), (24, 3400), (7, 1500)):
        fits = [n for n in range(1, own + 1) if own % n == 0]
        fits = [n for n in fits if 1000 + 100 * own / n + (3 * own if n > 1 else 0) <= limit]
        assert fewest_pieces(own, line, 3, limit) == fits


@pytest.mark.parametrize("steps", [1, 5, 6, 23])
@pytest.mark.parametrize("options", [(1, 2, None), (2, 3, None), (5, 1, 10), (3, 2, 2), (40, 2, None)])
def test_as_many_checkpoints_are_predicted_as_lie_on_the_disk(tmp_path, steps, options):
    section = CheckpointSection(*options)
    for step in range(1, steps + 1):
        if step % section.every == 0 or step == steps:
            state = {"step": step}
            checkpoint.save(tmp_path, step, state, keep=section.keep, keep_every=section.keep_every)
    assert kept_checkpoints(steps, section) == len(checkpoint.steps(tmp_path))


def test_the_size_of_a_checkpoint_is_that_of_its_file(tmp_path):
    state = plain_state(encoder={"weight": torch.randn(300, 7)})
    path = checkpoint.save(tmp_path, 1, state, keep=1, keep_every=None)
    assert checkpoint.size(state) == path.stat().st_size


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux clears the peak")
def test_a_peak_is_of_what_came_after_its_beginning():
    peak = Peak(torch.device("cpu"))
    before = peak.bytes()
    with mmap.mmap(-1, 100_000_000) as memory:  # new pages, unlike what malloc may have left in the tests' process
        np.frombuffer(memory, np.uint8).fill(1)
    assert 90e6 < peak.bytes() - before < 150e6
    assert Peak(torch.device("cpu")).bytes() < before + 50e6


def test_a_plan_is_that_of_the_run_and_writes_nothing(tmp_path, monkeypatch, run):
    options = (*TINY, *CPU, "checkpoint.every=1", "probe=none", "log.report=false", "train.steps=3")
    before = tree(tmp_path), tree(cache_dir())
    config = compose(*options, "plan=true")
    with built(config, None, Origin({"objective": "infonce"})) as parts:
        plan = made_plan(parts, fresh(config, measured), 10**12, seconds=0)
        lines = dict(plan_lines(parts, plan))
    assert (tree(tmp_path), tree(cache_dir())) == before
    assert plan.most == 160 and plan.cost.batch == 16 and plan.cost.steps == 1
    encoder = sum(p.numel() for p in parts.components.encoder.parameters())
    heads = sum(p.numel() for p in parts.components.objective.parameters())
    assert lines["parameters"] == f"encoder {encoder:,}, heads {heads:,}"
    assert lines["largest"].startswith("batch 160, which is all samples")
    assert lines["time"].endswith("for 3 steps; the evaluation at the end is not in it")
    code, _, err = run(*options, "run_dir=r")
    assert code == 0, err
    files = [path.stat().st_size for path in checkpoint.steps(tmp_path / "r")]
    assert disk(parts, plan.checkpoint, 3) == {"checkpoints": 2 * plan.checkpoint}
    assert len(files) == 2 and plan.checkpoint == plan.cost.checkpoint == pytest.approx(files[0], rel=0.01)


def test_a_batch_that_does_not_fit_is_not_tried():
    config = compose(*TINY, *CPU)
    asked = []
    with built(config, None, Origin()) as parts:
        plan = made_plan(parts, fresh(config, by_line(asked)), 6000)
    assert plan.memory == 6600 and plan.cost is None and plan.most == 10 and asked == [(8, 1), (16, 1)]
    lines = list(plan_lines(parts, plan))
    assert (
        "",
        "it does not fit: raise train.accumulate (auto finds the number), or lower train.batch_size",
    ) in lines


def test_of_several_processes_each_has_its_part_and_its_buckets():
    config = compose(*TINY, *CPU, "device.num=2", "train.batch_size=32")
    asked = []
    with built(config, None, Origin()) as parts:
        plan = made_plan(parts, fresh(config, by_line(asked)), 10**12)
    assert asked == [(8, 1), (16, 1), (16, 1), (80, 1)] and plan.most == 160
    trained = [p for m in (parts.components.encoder, parts.components.objective) for p in m.parameters()]
    assert plan.memory == 6600 + 4 * sum(p.numel() for p in trained)
    texts = [text for _, text in plan_lines(parts, plan)]
    assert sum("by formula from one process" in text for text in texts) == 2


def test_the_jobs_of_a_sweep_are_lines_and_there_is_no_folder(run, tmp_path):
    options = (*(word for word in TINY if word.startswith("dataset")), *CPU, "log.report=false", "train.minutes=2")
    code, out, err = run("-m", "plan=true", *options, "train.batch_size=16,400", "run_dir=s")
    good, bad, total = out.splitlines()
    assert re.fullmatch(r"train.batch_size=16  [\d,]+ samples/s  2 min  [\d.]+ MB", good)
    told = "error: train.batch_size=400 is more than the 160 training samples. Give at most 160."
    assert (bad, code, err) == (f"train.batch_size=400  {told}", 2, f"ssl-train: {told}\n")
    assert total == "1 job: 2 min of training one after the other" and not list(tmp_path.iterdir())


def test_a_search_is_not_planned():
    for plan, sweeper in (("plan=true", "grid"), ("plan=false", "optuna"), ("seed=1", "optuna")):
        check_launcher([plan, f"hydra/sweeper={sweeper}"], is_sweep=True)
    with pytest.raises(UserError, match="plan=true: hydra/sweeper=optuna chooses each job by results of others"):
        check_launcher(["plan=true", "hydra/sweeper=optuna"], is_sweep=True)


def test_data_that_must_be_fetched_are_named(run, tmp_path):
    code, out, err = run("plan=true", "dataset=cifar10", "dataset.path=data", "dataset.download=true", "device=cpu")
    assert (code, out) == (2, "") and "plan=true writes nothing, and these data need the download of https://" in err
    assert not list(tmp_path.iterdir())


def test_batchnorm_and_dropout_refuse_auto(run):
    code, _, err = run(*TINY, *CPU, "train.accumulate=auto", "plan=true")
    assert code == 2 and "train.accumulate=auto: BatchNorm normalises by micro-batches" in err
    vit = ("encoder=vit_micro", "encoder.drop_path=0.1", "objective.norm=layer", "dataset.size=32")
    config = compose(*TINY, *CPU, *vit, "train.accumulate=auto")
    with pytest.raises(UserError, match="train.accumulate=auto: dropout depends on how a batch is cut"):
        settle_pieces(config, build_components(config), choose("cpu", "fp32"), Ranks())
    with pytest.raises(UserError, match="train.accumulate='car' is neither a whole number nor auto"):
        compose("train.accumulate=car")


def test_auto_tries_what_comes_close_and_takes_the_fewest_that_fit():
    config, line = compose(*TINY, *CPU, *ALONE), Line(50e6, 5e6)
    for each, limit, expected, tried in (
        (5e6, 1e9, 1, []),  # the line says 130 MB
        (5e6, 140e6, 1, [(16, 1)]),
        (5e6, 100e6, 2, [(16, 2)]),  # the line says 90 MB
        (7e6, 92e6, 4, [(16, 2), (16, 4)]),  # it was 106 MB, and then 78
    ):
        asked = []
        machine = fresh(config, by_line(asked, base=50e6, each=each))
        number, words = fewest_that_fit(machine, line, 16, int(limit), seconds=0)
        assert (number, asked) == (expected, tried)
        assert words.startswith(f"{number} micro-batch{'es' * (number > 1)} of {16 // number} samples (")
    with pytest.raises(UserError, match="single samples need 55 MB, and there are 40 MB"):
        fewest_that_fit(machine, line, 16, int(40e6), seconds=0)


@pytest.mark.slow
def test_a_process_of_its_own_says_what_it_needs_or_why_it_cannot():
    task = Task(compose(*TINY, *CPU), None, 0.0)
    found, here = in_fresh_process(task), measured(task)
    assert found.checkpoint == here.checkpoint and (found.batch, found.pieces) == (16, 1)
    assert 100e6 < found.peak < 3e9 and found.seconds > 0


@pytest.mark.slow
@pytest.mark.long
def test_the_command_measures_in_processes_of_its_own(run, tmp_path):
    options = (*TINY, *CPU, *ALONE, "train.accumulate=auto", "probe=none", "log.report=false")
    code, out, err = run(*options, "plan=true")
    assert (code, err) == (0, "") and not list(tmp_path.iterdir())
    words = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert words == ["plan", "parameters", "memory", "largest", "speed", "time", "disk"]
    code, out, err = run(*options, "run_dir=r")
    assert code == 0 and "1 micro-batch of 16 samples (" in out, err
    assert read_config(tmp_path / "r")["train"]["accumulate"] == 1
    code, out, err = run("plan=true", *options, "train.batch_size=4000")
    assert code == 2 and "train.batch_size=4000 is more than the 160 training samples" in err


def test_an_index_of_the_data_is_left_to_the_run(tmp_path):
    for i in range(40):
        Image.fromarray(np.full((16, 16, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    before = tree(cache_dir())
    config = compose("dataset=images", f"dataset.path={tmp_path}", "dataset.size=16", "train.batch_size=8", *CPU)
    with built(config, None, Origin()) as parts:
        assert parts.notes == (("index", f"the run keeps an index of its data in {cache_dir()}"),)
    assert tree(cache_dir()) == before


def test_auto_is_no_part_of_the_name_and_its_number_is_kept(run, tmp_path):
    auto, one = (compose(*TINY, *ALONE, f"train.accumulate={value}") for value in ("auto", 1))
    assert settings(auto) == settings(one)
    options = (*TINY, *CPU, *ALONE, "probe=none", "log.report=false", "run_dir=r")
    assert run(*options, "train.accumulate=4")[0] == 0
    code, out, err = run(*options, "train.accumulate=auto", "train.steps=5")
    assert code == 0 and "resuming r at step 3" in out, err
    assert read_config(tmp_path / "r")["train"]["accumulate"] == 4
    assert checkpoint.open_run(str(tmp_path / "r"))[1]["config"].train.accumulate == 4
