"""Continued training that has made an encoder worse is told: on the terminal, in result.json and in the report."""

from types import SimpleNamespace

import pytest
import torch

from sslcli.evaluation.base import compared, table
from sslcli.report.page import _headline
from sslcli.run_dir.readings import readings
from sslcli.run_dir.records import Record

CONTEXT = SimpleNamespace(split="held out", seed=0)


def metric(lost, *, higher_is_better=True, queries=400):
    """A metric of shares of 0 and 1, where the start is right on the first ``lost`` queries and the trained is not."""
    right = torch.arange(queries) % 2 == 0
    trained, start = right.clone(), right.clone()
    trained[:lost], start[:lost] = not higher_is_better, higher_is_better
    scores = {"trained": trained, "raw_input": torch.ones(queries) == higher_is_better, "start": start}
    return compared(CONTEXT, scores, "p", unit="share", higher_is_better=higher_is_better, headline=True)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_loss_of_more_than_two_standard_errors_is_a_sentence(higher_is_better):
    found = metric(40, higher_is_better=higher_is_better)
    difference = torch.tensor([1.0] * 40 + [0.0] * 360)
    assert found.start_standard_error == pytest.approx(float(difference.std(correction=0)) / 20)
    said = " ".join(" ".join(table({"knn_top1": found})).split())
    assert "worse than its start: knn_top1 lost 10.0 ± 1.5 points against encoder.weights." in said
    (reading,) = (reading for _, reading in readings({"knn_top1": found.to_json()}))
    assert reading.start_standard_error == found.start_standard_error
    assert reading.baselines == found.baselines and set(found.baselines) == {"raw_input", "start"}
    record = Record(None, {}, "", [], {"headline": "knn_top1"}, {"knn_top1": reading}, {}, [], "", {})
    assert _headline(record)["below_start"].startswith("Training has made the encoder worse than its start")


@pytest.mark.parametrize("found", [metric(3), metric(0), compared(CONTEXT, {"trained": 1.0, "start": 2.0}, "p", unit="",
                                                                  higher_is_better=True)])  # fmt: skip
def test_less_or_nothing_known_is_not(found):
    assert "worse" not in " ".join(table({"knn_top1": found}))
