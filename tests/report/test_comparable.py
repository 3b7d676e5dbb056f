"""Which numbers of a comparison are ranked, and which are only shown."""

import math

import pytest

from sslcli.report.columns import best
from sslcli.report.differences import differing, incomparable, incomparable_losses
from sslcli.run_dir.readings import Reading

RUN = {
    "objective._target_": "sslcli.objectives.moco.MoCo", "objective.temperature": 0.2, "objective.queue": 64,
    "views._target_": "sslcli.views.image.Image", "views.blur": 0.5, "dataset._target_": "sslcli.data.images",
    "dataset.path": "a", "dataset.size": 32, "dataset.workers": 1, "encoder._target_": "sslcli.encoders.mlp.MLP",
    "encoder.patch_size": 4, "train.batch_size": 64, "optimizer.lr": 0.1, "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    "key, value, ranks_loss, ranks_accuracy",
    [
        ("objective.temperature", 0.1, False, True),
        ("objective.queue", 128, False, True),
        ("objective._target_", "sslcli.objectives.byol.BYOL", False, True),
        ("objective.parts.a._target_", "sslcli.objectives.byol.BYOL", False, True),
        ("train.batch_size", 128, False, True),
        ("views.blur", 0.0, False, True),
        ("encoder.patch_size", 8, False, True),
        ("dataset.size", 64, False, True),
        ("dataset.path", "b", False, False),
        ("dataset.workers", 4, True, True),
        ("optimizer.lr", 0.2, True, True),
        ("encoder._target_", "sslcli.encoders.timm.Timm", True, True),
        ("seed", 1, True, True),
    ],
)
def test_what_is_ranked_with_what(key, value, ranks_loss, ranks_accuracy):
    runs = [RUN, {**RUN, key: value}]
    named = key.partition("._target_")[0] if key.count(".") == 1 else key
    loss, accuracy = incomparable_losses(runs), incomparable("knn_top1", {"20-NN"}, runs)
    assert (loss == "") == ranks_loss and (ranks_loss or f"differ in {named}, so" in loss)
    assert (accuracy == "") == ranks_accuracy and (ranks_accuracy or f"they differ in {named}" in accuracy)
    assert incomparable("held_out_loss", {"loss"}, runs) == loss


def test_numbers_of_two_protocols_or_of_other_views_are_not_ranked():
    assert "different protocols" in incomparable("knn_top1", {"20-NN", "5-NN"}, [RUN, RUN])
    other = {**RUN, "views.blur": 0.0}
    assert "they differ in views.blur" in incomparable("alignment", {"alignment"}, [RUN, other])
    assert incomparable("rankme", {"rank"}, [RUN, other]) == ""


def test_a_key_of_one_option_is_shown_where_its_runs_differ():
    byol = {**RUN, "objective._target_": "sslcli.objectives.byol.BYOL"}
    del byol["objective.temperature"]
    assert differing([RUN, byol]) == {"objective": ["MoCo", "BYOL"]}
    warm = {**RUN, "objective.temperature": 0.5}
    assert differing([RUN, warm, byol])["objective.temperature"] == [0.2, 0.5, None]


def reading(value, error=None):
    return Reading(value, standard_error=error)


@pytest.mark.parametrize(
    "readings, higher, marks",
    [
        ([reading(1.0), reading(2.0), None], True, ["", "best", ""]),
        ([reading(1.0), reading(2.0), None], False, ["best", "", ""]),
        (
            [reading(0.80, 0.03), reading(0.88, 0.04), reading(0.70, 0.03)],
            True,
            ["among the best", "among the best", ""],
        ),
        ([reading(math.nan), reading(2.0), reading(1.0)], True, ["", "best", ""]),
        ([reading(2.0), None, reading(math.nan)], True, ["", "", ""]),
    ],
)
def test_the_best_is_marked_as_far_as_errors_tell(readings, higher, marks):
    assert best(readings, higher_is_better=higher) == marks
