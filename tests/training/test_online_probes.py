"""Each probe's cheap form while a run trains, and the best by any metric of it, in that metric's direction."""

import json

import pytest
import torch
from support.helpers import TINY, compose, hook_of, make_trainer, plain_state
from support.marks import rest_is_slow

from sslcli.commands.build_trainer import make_online_metrics
from sslcli.components import build_components
from sslcli.config.upgrade import up_to_date
from sslcli.errors import UserError
from sslcli.evaluation.label_free import HIGHER_IS_BETTER
from sslcli.run_dir.console import Console
from sslcli.run_dir.formats import upgrade
from sslcli.run_dir.metrics_jsonl import read_lines
from sslcli.training.device import choose
from sslcli.training.early_stopping import BestSteps
from sslcli.training.online_evaluation import OnlineEvaluation

ONLINE = ("probe.every=1", "probe.share=null", "log.every=3")
SCORES = ("top1", "balanced_accuracy", "macro_f1")
KNN, LINEAR = ({f"online_{name}_{score}" for score in SCORES} for name in ("knn", "linear"))
PROBES = {
    "knn": KNN,
    "linear": LINEAR,
    "mi": {"online_mi_floor", "online_mi_ceiling"},
    "geometry": set(),
    "retrieval": set(),  # these data have no pairs
    "none": set(),
    "all": KNN | LINEAR | {"online_mi_floor", "online_mi_ceiling"},
}
SHORT = {
    "linear": ("probe.steps=10",),
    "mi": ("probe.steps=10",),
    "all": ("probe.parts.linear.steps=10", "probe.parts.mi.steps=10"),
}


def lines(folder):
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def ended(trainer):
    return [*trainer.encoder.state_dict().values(), *trainer.objective.state_dict().values()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    trainer = make_trainer(tmp_path_factory.mktemp("plain"), *TINY)
    trainer.fit()
    return ended(trainer)


@pytest.mark.parametrize("probe", rest_is_slow(PROBES, "knn", "linear", "none"))
def test_the_chosen_probe_is_measured_and_changes_no_bit(tmp_path, plain, probe):
    trainer = make_trainer(tmp_path, *TINY, *ONLINE, f"probe={probe}", *SHORT.get(probe, ()))
    trainer.fit()
    assert all(torch.equal(one, two) for one, two in zip(ended(trainer), plain, strict=True))
    measured = [line for line in lines(tmp_path) if "probe/rankme" in line]
    names = {f"probe/{name}" for name in PROBES[probe] | {*HIGHER_IS_BETTER}}
    assert [line["step"] for line in measured] == [1, 2, 3] and all(set(line) == {"step", *names} for line in measured)


def test_a_probe_without_a_cheap_form_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="probe.every: Finetune has no cheap form"):
        make_trainer(tmp_path, *TINY, *ONLINE, "probe=finetune")


def test_the_cheap_form_of_knn_reads_2000_in_the_bank_and_1000_queries():
    config = compose("dataset=synthetic", "dataset.num_samples=6000", "dataset.size=4", "views=small")
    parts = build_components(config)
    measured = make_online_metrics(config, parts, choose("cpu", "fp32"), Console(silent=True))
    protocol = measured.metrics(parts.encoder)["online_knn_top1"].protocol
    assert "bank 2,000 train, queries 1,000 held out" in protocol


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("rankmee", "there is no 'rankmee' to keep by. Did you mean 'rankme'?"),
        ("linear_top1", "there is no 'linear_top1' to keep by. Did you mean 'knn_top1'?"),
        ("alpha_req", "checkpoint.keep_best=alpha_req: neither a higher nor a lower value of it is better"),
    ],
)
def test_a_metric_that_cannot_be_kept_by_is_told_before_the_first_step(tmp_path, metric, said):
    trainer = make_trainer(tmp_path, *TINY, *ONLINE, f"checkpoint.keep_best={metric}")
    with pytest.raises(UserError) as told:
        trainer.fit()
    assert said in str(told.value) and trainer.step == 0


def test_lower_is_better_where_it_is(tmp_path):
    trainer = make_trainer(tmp_path, *TINY, *ONLINE, "checkpoint.keep_best=alignment", "optimizer.lr=0.03")
    trainer.fit()
    values = {line["step"]: line["probe/alignment"] for line in lines(tmp_path) if "probe/alignment" in line}
    best = hook_of(trainer, OnlineEvaluation).best
    assert (best.step, best.value) == min(values.items(), key=lambda item: item[1])
    assert (tmp_path / "checkpoints" / "best").read_text() == f"step-{best.step:08d}.pt\n"
    assert f"alignment was lowest at step {best.step}" in best.summary(3, 3)[0]


def test_patience_begins_to_count_after_the_steps_of_grace():
    best = BestSteps("loss", 2, after=40)
    best.higher_is_better = False
    for step, (value, exhausted) in enumerate([(5.0, 0), (6.0, 0), (7.0, 0), (8.0, 0), (9.0, 0), (9.0, 1)], 1):
        best.update(10 * step, {"loss": value})  # steps 50 and 60 count
        assert best.exhausted == bool(exhausted)
    assert "stopped early at step 60: 2 evaluations without a lower loss" in best.summary(60, 6)[0]


@pytest.mark.parametrize("wrong", ["-1", "true", "0.5"])
def test_the_steps_of_grace_are_a_whole_number(wrong):
    with pytest.raises(UserError, match="probe.patience_after"):
        compose(*TINY, f"probe.patience_after={wrong}")


def test_what_older_versions_wrote_is_read_under_the_names_of_today(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0, "quality/rankme": 3.0}\n{"step": 1, "probe/knn_top1": 0.5, "probe/rankme": 3.0}\n'
    )
    assert list(read_lines(tmp_path)) == [
        {"step": 1, "loss": 2.0, "probe/rankme": 3.0},
        {"step": 1, "probe/online_knn_top1": 0.5, "probe/rankme": 3.0},
    ]
    own = {"best": 0.5, "best_step": 1, "since": 0}
    state = {"metric": "knn_top1", **own, "others": {"rankme": own}, "seconds": 1.0, "last": 1.0, "count": 1}
    old = plain_state(format=2, hooks={"online_evaluation": state})
    read = upgrade(old)["hooks"]["online_evaluation"]
    best = BestSteps("online_knn_top1")
    best.load_state_dict(read)
    assert (best.value, best.step) == (0.5, 1) and best.all_steps == {1}
    geometry = {"probe": {"_target_": "sslcli.probes.spread.Geometry", "samples": 7}}
    assert up_to_date(geometry, 1)["probe"] == {"_target_": "sslcli.evaluation.geometry.Geometry", "max_samples": 7}
