"""Every probe has a headline, which result.json names and a sweep compares; RankMe is measured once."""

import json

import pytest
from support.helpers import TINY, compose

from sslcli.commands.train import run
from sslcli.components import build_components
from sslcli.evaluation.base import Metric, NoProbe, Probe, Several, compared
from sslcli.evaluation.finetune import Finetune
from sslcli.evaluation.geometry import Geometry
from sslcli.evaluation.knn import KNN
from sslcli.evaluation.linear import Linear
from sslcli.evaluation.measure import measure
from sslcli.evaluation.mutual_information import MutualInformation
from sslcli.training.device import choose

LINEAR = {"_target_": "sslcli.evaluation.linear.Linear", "steps": 2, "lrs": [3.0], "weight_decays": [0.0]}
GEOMETRY = {"_target_": "sslcli.evaluation.geometry.Geometry", "lidar_views": 2}


class Own(Probe):
    """A user's probe, which marks no headline."""

    def __call__(self, context):
        return {
            name: compared(context, {"trained": value}, "p", unit="", higher_is_better=False)
            for name, value in (("mine", 3.0), ("other", 4.0))
        }


@pytest.fixture(scope="module")
def parts():
    config = compose(*TINY)
    return config, build_components(config), choose("cpu", "fp32")


@pytest.mark.parametrize(
    ("probe", "headline"),
    [
        (KNN(k=[3, 1], max_samples=40), "knn_top1"),
        (Linear(steps=2, lrs=[3.0], weight_decays=[0.0], max_samples=40), "linear_top1"),
        (Finetune(epochs=1, max_samples=8, batch_size=4), "finetune_top1"),
        (Geometry(max_samples=20, lidar_samples=4, lidar_views=2), "rankme"),
        (MutualInformation(max_samples=30, steps=2, hidden_dim=4), "mi_floor"),
        (Several(parts={"geometry": GEOMETRY, "linear": LINEAR}, max_samples=40), "rankme"),
        (Several(parts={"linear": LINEAR, "geometry": GEOMETRY}, max_samples=40), "linear_top1"),
        (NoProbe(), "held_out_loss"),
        (Own(), "mine"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Probe) else x,
)
def test_every_probe_has_one_headline(parts, probe, headline):
    found = measure(*parts, probe, budget=1.0)
    assert found.headline == headline
    assert [name for name, metric in found.metrics.items() if metric.headline] == [headline]
    assert all(isinstance(metric, Metric) for metric in found.metrics.values()) and found.label_free == {}
    if isinstance(probe, Several):
        assert "20 held out" in found.metrics["rankme"].protocol or "40 held out" in found.metrics["rankme"].protocol


def test_rankme_is_measured_once_an_evaluation(parts):
    geometry = measure(
        *parts, Geometry(max_samples=20, lidar_samples=4, lidar_views=2), budget=1.0, with_label_free=True
    )
    assert geometry.label_free == {} and "20 held out" in geometry.metrics["rankme"].protocol
    knn = measure(*parts, KNN(max_samples=40), budget=1.0, with_label_free=True)
    assert list(knn.label_free) == ["rankme", "alignment", "uniformity", "dimension_std"]
    assert "rankme" not in knn.metrics


def test_too_few_samples_are_not_replaced_by_another_measure(parts):
    class TooFew(Probe):
        def __call__(self, context):
            context.leave_out("mine: 3 samples are too few, it needs 5")
            return {}

    found = measure(*parts, TooFew(), budget=1.0)
    assert found.metrics == {} and found.headline is None
    assert found.left_out == ["mine: 3 samples are too few, it needs 5"]


@pytest.mark.parametrize("options", [("probe=linear", "probe.steps=2"), ("probe=none",)], ids=str)
def test_a_run_returns_its_headline_for_sweeps_also_when_it_is_finished(tmp_path, options):
    config = compose(*TINY, "device=cpu", "train.steps=1", "log.report=false", *options)
    value = run(config, tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"][result["headline"]]["value"] == value == run(config, tmp_path)
    assert "rankme" in result["metrics"] and "quality" not in result
