"""Looks at a run while it trains: they change nothing, cost what they may, and are remembered."""

import json
import time

import pytest
import torch
from support.helpers import TINY, compose, make_trainer

from sslcli.commands.train import make_watch
from sslcli.components import build_components
from sslcli.distributed import Ranks
from sslcli.errors import UserError
from sslcli.evaluation.collapse_monitor import CollapseMonitor
from sslcli.evaluation.knn import knn_accuracy
from sslcli.evaluation.label_free import rankme
from sslcli.evaluation.measure import embedder
from sslcli.evaluation.online import OnlineEvaluation
from sslcli.run_dir import checkpoint
from sslcli.run_dir.console import Console
from sslcli.training.device import choose
from sslcli.training.early_stopping import Watch

LOOKS = ("probe.every=2", "probe.share=null", "checkpoint.keep_best=knn_top1")
RUN = (*TINY, "train.steps=9", "log.every=3", "checkpoint.every=4", "encoder=vit_tiny", "encoder.patch_size=8",
       "encoder.drop_path=0.3")  # fmt: skip
CLOCK = {"samples_per_second", "data_wait"}


def lines(folder):
    found = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in found]


def ended(trainer):
    return {f"{part}.{name}": value.clone() for part in ("encoder", "objective")
            for name, value in getattr(trainer, part).state_dict().items()}  # fmt: skip


def same_bits(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    trainer = make_trainer(folder, *RUN, *LOOKS)
    trainer.fit()
    return folder, trainer


def test_looking_changes_no_bit_of_training(watched, tmp_path):
    plain = make_trainer(tmp_path, *RUN)
    plain.fit()
    folder, trainer = watched
    assert same_bits(ended(trainer), ended(plain))
    looked = [line for line in lines(folder) if "probe/knn_top1" in line]
    assert [line["step"] for line in looked] == [2, 4, 6, 8, 9]  # the last step, too
    assert {"probe/rankme", "probe/lidar", "probe/alignment", "probe/uniformity"} <= looked[0].keys()
    assert [line for line in lines(folder) if "loss" in line] == lines(tmp_path)


@pytest.mark.parametrize("step", [4, 5])
def test_a_killed_run_sees_the_same_and_keeps_the_same_best(watched, tmp_path, step):
    """Stopped in the middle and loaded again, with a look at the very step of the checkpoint and without."""
    folder, whole = watched
    first = make_trainer(tmp_path, *RUN, *LOOKS, f"checkpoint.every={step}")
    original, saved = first.save, []

    def save():
        original()
        saved.append(first.step)
        if first.step >= step:
            raise KeyboardInterrupt

    first.save = save
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    first.lines.write({"step": 9, "probe/knn_top1": 1.0})  # which a kill after the checkpoint left
    second = make_trainer(tmp_path, *RUN, *LOOKS)
    _, state = checkpoint.newest(tmp_path, print)
    second.load_state_dict(state)
    second.fit()
    assert same_bits(ended(second), ended(whole)) and lines(tmp_path) == lines(folder)
    clock = {"seconds": None, "last": None}
    assert {**second.watch.state_dict(), **clock} == {**whole.watch.state_dict(), **clock}
    best = [(f / "checkpoints" / "best").read_text() for f in (tmp_path, folder)]
    assert best[0] == best[1]


def test_what_is_seen_is_measured_in_eval_mode_on_the_held_out_samples():
    config = compose(*TINY, "train.precision=fp32")
    parts, compute = build_components(config), choose("cpu", "fp32")
    parts.encoder.train()
    before = {name: value.clone() for name, value in parts.encoder.state_dict().items()}
    seen = make_watch({**config, "probe": {"every": 1}}, parts, compute, Console(silent=True))._look(parts.encoder)
    assert parts.encoder.training
    assert all(torch.equal(value, before[name]) for name, value in parts.encoder.state_dict().items())
    embed = embedder(parts.encoder, parts.views, compute)
    train, test = parts.dataset, parts.dataset.held_out
    bank, queries = (embed(part, torch.arange(len(part))) for part in (train, test))
    assert [seen["knn_top1"]] == knn_accuracy(bank, train.labels, queries, test.labels, ks=[20], temperature=0.07)
    assert seen["rankme"] == pytest.approx(rankme(queries), rel=1e-4)


def test_samples_without_labels_are_seen_without_knn():
    parts, compute = build_components(compose(*TINY)), choose("cpu", "fp32")
    for part in (parts.dataset, parts.dataset.held_out):
        part.labels = None
    quality = CollapseMonitor(parts.dataset, parts.views, compute.device, seed=0, full=True, warn=print)
    glance = OnlineEvaluation(parts.dataset, lambda *_: pytest.fail("nothing to embed"), quality)
    assert not glance.has_labels and "knn_top1" not in glance(parts.encoder) and "rankme" in glance(parts.encoder)
    config = compose(*TINY, "probe.every=1", "checkpoint.keep_best=knn_top1")
    with pytest.raises(UserError, match="no labels to read it by. Use rankme or lidar"):
        make_watch(config, parts, compute, Console(silent=True))


# --- what is remembered ---------------------------------------------------------------------------


def watch(values, **options):
    """A watch that sees these values of ``rankme`` one after the other."""
    values = iter(values)
    defaults = {"every": 1, "share": None, "metric": "rankme", "patience": None}
    return Watch(lambda encoder: {"rankme": next(values)}, **{**defaults, **options})


def look(watch, steps, seconds=0.0):
    for step in steps:
        watch.look(None, step, seconds, Ranks())


def test_the_best_is_the_first_of_the_highest():
    seen = watch([3.0, 5.0, 4.0, 5.0])
    look(seen, [1])
    assert (seen.best_step, seen.since) == (1, 0)
    look(seen, [2, 3, 4])
    assert (seen.best_step, seen.best, seen.since) == (2, 5.0, 2)
    assert "best so far" in seen.line(2, {"rankme": 5.0}) and "best so far" not in seen.line(4, {"rankme": 5.0})


def test_patience_counts_looks_without_a_higher_value():
    seen = watch([3.0, 2.0, 4.0, 4.0, 1.0], patience=2)
    for step, exhausted in ((1, False), (2, False), (3, False), (4, False), (5, True)):
        look(seen, [step])
        assert seen.exhausted == exhausted
    assert "stopped early at step 5: 2 looks without a higher rankme" in seen.summary(5)[0]


def test_a_resumed_watch_remembers_and_another_metric_does_not_count():
    seen = watch([3.0, 2.0], patience=2)
    look(seen, [1, 2])
    again = watch([2.5], patience=2)
    again.load_state_dict(seen.state_dict())
    look(again, [3])
    assert again.exhausted and again.best_step == 1
    other = watch([0.1], metric="lidar", patience=2)
    other.load_state_dict(seen.state_dict())
    assert other.best is None and other.since == 0


def test_looks_are_left_out_once_they_have_had_their_share():
    taken = []

    def slow(encoder):
        taken.append(1)
        time.sleep(0.02)
        return {"rankme": 1.0}

    seen = Watch(slow, every=1, share=0.1)
    assert seen.look(None, 1, 0.0, Ranks())  # the first always
    assert seen.look(None, 2, 0.19, Ranks()) == {} and len(taken) == 1
    assert "left out: it would take looks beyond probe.share=0.1" in seen.line(2, {}) and seen.line(3, {}) is None
    assert seen.look(None, 3, 1e6, Ranks()) and len(taken) == 2
    again = Watch(slow, every=1, share=0.1)
    again.load_state_dict(seen.state_dict())
    assert again.look(None, 4, 0.3, Ranks()) == {}


def test_the_time_of_looks_is_no_training_time(tmp_path):
    trainer = make_trainer(tmp_path, *TINY, "probe.every=1", "probe.share=null")

    def slow(encoder):
        time.sleep(1.0)
        return {"rankme": 1.0}

    trainer.watch._look = slow
    start = time.perf_counter()
    trainer.fit()
    assert trainer.watch.seconds > 3 and trainer.seconds < time.perf_counter() - start - 3


def test_a_run_from_another_runs_checkpoint_has_no_best_yet(watched, tmp_path):
    """``resume=PATH``: the other run's best checkpoint is not here."""
    _, state = checkpoint.newest(watched[0], print)
    assert state["watch"]["best_step"] is not None
    other = make_trainer(tmp_path, *RUN, *LOOKS)
    other.load_state_dict(state)
    assert other.watch.best_step is None


def session(folder, steps, *options, **values):
    """A session of a run, up to ``steps``, whose looks see these values, one a look."""
    keep = ("checkpoint.every=1", "checkpoint.keep=1", "probe.share=null")
    trainer = make_trainer(folder, *TINY, f"train.steps={steps}", *keep, *options)
    found = checkpoint.newest(folder, print)
    if found is not None:
        trainer.load_state_dict(found[1])
    if trainer.watch is not None:
        looks = iter([dict(zip(values, row)) for row in zip(*values.values())])
        trainer.watch._look = lambda encoder: next(looks)
    trainer.fit()
    return trainer


def files(folder):
    return {checkpoint.step_of(path) for path in checkpoint.steps(folder)}


KNN, RANK = ("probe.every=1", "checkpoint.keep_best=knn_top1"), ("probe.every=1", "checkpoint.keep_best=rankme")


@pytest.mark.parametrize("between", [(), ("probe.every=1",)])
def test_the_best_is_remembered_by_a_session_that_does_not_watch_for_it(tmp_path, between):
    session(tmp_path, 3, *KNN, knn_top1=[0.25, 0.75, 0.5])
    session(tmp_path, 5, *between, knn_top1=[0.875, 0.875])
    assert files(tmp_path) == {2, 5}
    last = session(tmp_path, 7, *KNN, knn_top1=[0.5, 0.625])
    assert (last.watch.best, last.watch.best_step, last.watch.since) == (0.75, 2, 3)
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000002.pt\n" and files(tmp_path) == {2, 7}


def test_each_metric_keeps_its_best_while_another_is_watched_for(tmp_path):
    session(tmp_path, 3, *KNN, knn_top1=[0.25, 0.75, 0.5])
    other = session(tmp_path, 6, *RANK, rankme=[1.0, 3.0, 2.0], knn_top1=[0.875] * 3)
    assert (other.watch.best, other.watch.best_step) == (3.0, 5) and files(tmp_path) == {2, 5, 6}
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000005.pt\n"
    session(tmp_path, 7)
    again = session(tmp_path, 8, *KNN, knn_top1=[0.5])
    assert (again.watch.best, again.watch.best_step) == (0.75, 2) and files(tmp_path) == {2, 5, 8}
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000002.pt\n"
    last = session(tmp_path, 9, *RANK, rankme=[4.0])
    assert last.watch.best_step == 9 and files(tmp_path) == {2, 9}
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000009.pt\n"


def test_a_checkpoint_from_before_there_were_other_metrics_is_gone_on_from(tmp_path):
    trainer = session(tmp_path, 2, *KNN, knn_top1=[0.75, 0.5])
    state = trainer.state_dict()
    del state["watch"]["others"]
    checkpoint.save(tmp_path, 2, state, keep=1, keep_every=None)
    assert session(tmp_path, 3, *KNN, knn_top1=[0.5]).watch.best_step == 1
