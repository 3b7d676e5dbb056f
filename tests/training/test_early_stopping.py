"""Evaluations while a run trains: they change nothing, cost what they may, and are remembered."""

import json
import time

import pytest
import torch
from support import small_models  # noqa: F401  registers models
from support.helpers import TINY, compose, hook_of, make_trainer, plain_state
from support.marks import rest_is_slow

from sslcli.commands.build_trainer import make_online_metrics
from sslcli.components import build_components
from sslcli.errors import UserError
from sslcli.evaluation.knn import knn_accuracy
from sslcli.evaluation.label_free import HIGHER_IS_BETTER, rankme
from sslcli.evaluation.measure import embedder
from sslcli.run_dir import checkpoint
from sslcli.run_dir.console import Console
from sslcli.run_dir.metrics_jsonl import JsonLines
from sslcli.training.device import choose
from sslcli.training.early_stopping import BestSteps
from sslcli.training.hooks import Hook
from sslcli.training.online_evaluation import OnlineEvaluation

EVALUATED = ("probe.every=2", "probe.share=null", "checkpoint.keep_best=knn_top1")
RUN = (*TINY, "train.steps=9", "log.every=3", "checkpoint.every=4", "encoder=timm", "encoder.name=vit_mini",
       "encoder.norm=layer", "encoder.drop_path=0.3")  # fmt: skip
CLOCK = {"samples_per_second", "data_wait"}


def lines(folder):
    found = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in found]


def ended(trainer):
    return {f"{part}.{name}": value.clone() for part in ("encoder", "objective")
            for name, value in getattr(trainer, part).state_dict().items()}  # fmt: skip


def same_bits(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def online(trainer):
    return hook_of(trainer, OnlineEvaluation)


class KilledAfter(Hook):
    """Ends the session as a kill would, after everything else of the step ``step`` is written."""

    def __init__(self, step):
        self.step = step

    def write(self, trainer):
        if trainer.step >= self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    trainer = make_trainer(folder, *RUN, *EVALUATED)
    trainer.fit()
    return folder, trainer


@pytest.mark.slow
def test_evaluating_changes_no_bit_of_training(watched, tmp_path):
    plain = make_trainer(tmp_path, *RUN)
    plain.fit()
    folder, trainer = watched
    assert same_bits(ended(trainer), ended(plain))
    evaluated = [line for line in lines(folder) if "probe/online_knn_top1" in line]
    assert [line["step"] for line in evaluated] == [2, 4, 6, 8, 9]  # the last step, too
    assert {"probe/rankme", "probe/lidar", "probe/alignment", "probe/uniformity"} <= evaluated[0].keys()
    assert [line for line in lines(folder) if "loss" in line] == lines(tmp_path)


@pytest.mark.parametrize("step", rest_is_slow([4, 5], 5))
def test_a_killed_run_sees_the_same_and_keeps_the_same_best(watched, tmp_path, step):
    """Stopped in the middle and loaded again, with an evaluation at the very step of the checkpoint and without."""
    folder, whole = watched
    first = make_trainer(tmp_path, *RUN, *EVALUATED, f"checkpoint.every={step}")
    first.hooks.append(KilledAfter(step))
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    kept = JsonLines(tmp_path / "metrics.jsonl")
    kept.write({"step": 9, "probe/online_knn_top1": 1.0})  # which a kill after the checkpoint left
    second = make_trainer(tmp_path, *RUN, *EVALUATED)
    _, state = checkpoint.newest(tmp_path, print)
    second.load_state_dict(state)
    kept.cut_back(second.step)
    second.fit()
    assert same_bits(ended(second), ended(whole)) and lines(tmp_path) == lines(folder)
    clock = {"seconds": None, "last": None}
    assert {**online(second).state_dict(), **clock} == {**online(whole).state_dict(), **clock}
    best = [(f / "checkpoints" / "best").read_text() for f in (tmp_path, folder)]
    assert best[0] == best[1]


def test_what_is_seen_is_measured_in_eval_mode_on_the_held_out_samples():
    config = compose(*TINY, "train.precision=fp32")
    parts, compute = build_components(config), choose("cpu", "fp32")
    parts.encoder.train()
    before = {name: value.clone() for name, value in parts.encoder.state_dict().items()}
    seen = make_online_metrics(config, parts, compute, Console(silent=True))(parts.encoder)
    assert parts.encoder.training
    assert all(torch.equal(value, before[name]) for name, value in parts.encoder.state_dict().items())
    embed = embedder(parts.encoder, parts.views, compute)
    train, test = parts.dataset, parts.dataset.held_out
    bank, queries = (embed(part, torch.arange(len(part))) for part in (train, test))
    assert [seen["online_knn_top1"]] == knn_accuracy(
        bank, train.labels, queries, test.labels, ks=[20], temperature=0.07
    )
    assert seen["rankme"] == pytest.approx(rankme(queries), rel=1e-4)


def test_samples_without_labels_are_seen_without_knn():
    parts, compute = build_components(compose(*TINY)), choose("cpu", "fp32")
    for part in (parts.dataset, parts.dataset.held_out):
        part.labels = None
    online = make_online_metrics(compose(*TINY), parts, compute, Console(silent=True))
    assert set(online(parts.encoder)) == {*HIGHER_IS_BETTER}
    with pytest.raises(UserError, match="there is no 'knn_top1' to keep by. Known: .*rankme.* on these data"):
        online.direction("online_knn_top1", parts.encoder)


# --- what is remembered ---------------------------------------------------------------------------


def best(values, start=1, **options):
    """What is remembered of these values of ``rankme``, of one step after the other."""
    found = BestSteps(**{"metric": "rankme", **options})
    for step, value in enumerate(values, start):
        found.update(step, {"rankme": value})
    return found


def test_the_best_is_the_first_of_the_highest():
    found = best([3.0])
    assert (found.step, found.since) == (1, 0)
    found = best([3.0, 5.0, 4.0, 5.0])
    assert (found.step, found.value, found.since) == (2, 5.0, 2)


def test_the_best_so_far_is_called_that(tmp_path, capsys):
    session(tmp_path, 4, *RANK, rankme=[3.0, 5.0, 4.0, 5.0])
    said = [line for line in capsys.readouterr().out.splitlines() if "probe" in line]
    assert ["best so far" in line for line in said[:4]] == [True, True, False, False]


def test_patience_counts_evaluations_without_a_higher_value():
    values = [3.0, 2.0, 4.0, 4.0, 1.0]
    for count, exhausted in ((1, False), (2, False), (3, False), (4, False), (5, True)):
        assert best(values[:count], patience=2).exhausted == exhausted
    said = best(values, patience=2).summary(5, evaluations=5)
    assert "stopped early at step 5: 2 evaluations without a higher rankme" in said[0]
    assert "of 5 evaluations" in said[1]


def test_a_resumed_run_remembers_and_another_metric_does_not_count():
    before = best([3.0, 2.0], patience=2)
    again = BestSteps("rankme", 2)
    again.load_state_dict(before.state_dict())
    again.update(3, {"rankme": 2.5})
    assert again.exhausted and again.step == 1
    other = BestSteps("lidar", 2)
    other.load_state_dict(before.state_dict())
    assert other.value is None and other.since == 0 and other.all_steps == {1}


def evaluated_by(trainer, measure):
    """The trainer, with ``measure`` in the place of what it evaluates by."""
    online(trainer)._measure = measure
    return trainer


def slow(seconds):
    def measure(encoder):
        time.sleep(seconds)
        return {"rankme": 1.0}

    return measure


@pytest.mark.slow
def test_evaluations_are_left_out_once_they_have_had_their_share(tmp_path, capsys):
    """Each takes far longer than a step, so that only the first and the last are made."""
    trainer = evaluated_by(make_trainer(tmp_path, *TINY, "train.steps=4", "probe.every=1", "probe.share=0.01"), slow(1))
    trainer.fit()
    assert [line["step"] for line in lines(tmp_path) if "probe/rankme" in line] == [1, 4]
    assert capsys.readouterr().out.count("left out: it would take evaluations beyond probe.share=0.01") == 1
    again = make_trainer(tmp_path, *TINY, "train.steps=6", "probe.every=1", "probe.share=0.01")
    again.load_state_dict(trainer.state_dict())
    evaluated_by(again, slow(0)).fit()
    assert [line["step"] for line in lines(tmp_path) if "probe/rankme" in line] == [1, 4, 6]


@pytest.mark.slow
def test_the_time_of_evaluations_is_no_training_time(tmp_path):
    trainer = evaluated_by(make_trainer(tmp_path, *TINY, "probe.every=1", "probe.share=null"), slow(1))
    start = time.perf_counter()
    trainer.fit()
    assert online(trainer).seconds > 3 and trainer.seconds < time.perf_counter() - start - 3


def test_a_run_from_another_runs_checkpoint_has_no_best_yet(watched, tmp_path):
    """``resume=PATH``: the other run's best checkpoint is not here."""
    _, state = checkpoint.newest(watched[0], print)
    assert state["hooks"]["online_evaluation"]["best_step"] is not None
    other = make_trainer(tmp_path, *RUN, *EVALUATED)
    other.load_state_dict(state)
    assert online(other).best.step is None


def session(folder, steps, *options, **values):
    """A session of a run, up to ``steps``, whose evaluations find these values, one after the other."""
    keep = ("checkpoint.every=1", "checkpoint.keep=1", "probe.share=null")
    trainer = make_trainer(folder, *TINY, f"train.steps={steps}", *keep, *options)
    found = checkpoint.newest(folder, print)
    if found is not None:
        trainer.load_state_dict(found[1])
    if online(trainer)._measure is not None:
        found = iter([dict(zip(values, row)) for row in zip(*values.values())])
        evaluated_by(trainer, lambda encoder: next(found))
    trainer.fit()
    return trainer


def files(folder):
    return {checkpoint.step_of(path) for path in checkpoint.steps(folder)}


KNN, RANK = ("probe.every=1", "checkpoint.keep_best=knn_top1"), ("probe.every=1", "checkpoint.keep_best=rankme")


@pytest.mark.parametrize("between", [(), ("probe.every=1",)])
def test_the_best_is_remembered_by_a_session_that_does_not_ask_for_it(tmp_path, between):
    session(tmp_path, 3, *KNN, online_knn_top1=[0.25, 0.75, 0.5])
    session(tmp_path, 5, *between, online_knn_top1=[0.875, 0.875])
    assert files(tmp_path) == {2, 5}
    last = session(tmp_path, 7, *KNN, online_knn_top1=[0.5, 0.625])
    assert (online(last).best.value, online(last).best.step, online(last).best.since) == (0.75, 2, 3)
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000002.pt\n" and files(tmp_path) == {2, 7}


@pytest.mark.slow
def test_each_metric_keeps_its_best_while_another_is_asked_for(tmp_path):
    session(tmp_path, 3, *KNN, online_knn_top1=[0.25, 0.75, 0.5])
    other = session(tmp_path, 6, *RANK, rankme=[1.0, 3.0, 2.0], online_knn_top1=[0.875] * 3)
    assert (online(other).best.value, online(other).best.step) == (3.0, 5) and files(tmp_path) == {2, 5, 6}
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000005.pt\n"
    session(tmp_path, 7)
    again = session(tmp_path, 8, *KNN, online_knn_top1=[0.5])
    assert (online(again).best.value, online(again).best.step) == (0.75, 2) and files(tmp_path) == {2, 5, 8}
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000002.pt\n"
    last = session(tmp_path, 9, *RANK, rankme=[4.0])
    assert online(last).best.step == 9 and files(tmp_path) == {2, 9}
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000009.pt\n"


def test_a_checkpoint_from_before_there_were_other_metrics_is_gone_on_from(tmp_path):
    trainer = session(tmp_path, 2, *KNN, online_knn_top1=[0.75, 0.5])
    state = trainer.state_dict()
    del state["hooks"]["online_evaluation"]["others"]
    checkpoint.save(tmp_path, 2, {**plain_state(), **state}, keep=1, keep_every=None)
    assert online(session(tmp_path, 3, *KNN, online_knn_top1=[0.5])).best.step == 1
