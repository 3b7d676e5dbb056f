"""What a run says of itself without labels, and what it says when labels were used."""

import json

import pytest
import torch
from support.helpers import TINY, compose, make_trainer, randomness
from torch.nn import functional as F

from sslcli.components import build_components
from sslcli.data.selection import drawn
from sslcli.errors import UserError
from sslcli.evaluation.collapse_monitor import CollapseMonitor
from sslcli.evaluation.knn import KNN
from sslcli.evaluation.label_free import alignment, dimension_std, rankme, uniformity
from sslcli.evaluation.measure import measure

NAMES = {"rankme", "alignment", "uniformity", "dimension_std"}


def quality(parts, warn=lambda text: None, **options):
    return CollapseMonitor(
        parts.dataset, parts.views, torch.device("cpu"), seed=0, warn=warn, **{"full": False, **options}
    )


def test_it_measures_held_out_samples_in_eval_mode():
    parts = build_components(compose(*TINY))
    parts.encoder.train()
    before = {name: b.clone() for name, b in parts.encoder.named_buffers()}
    found = quality(parts)(parts.encoder)
    assert parts.encoder.training and all(torch.equal(b, before[n]) for n, b in parts.encoder.named_buffers())
    parts.encoder.eval()
    held_out = parts.dataset.held_out
    columns = held_out.fetch(drawn(len(held_out), len(held_out)))
    with torch.no_grad():
        clean = parts.encoder(parts.views.evaluation_view(columns)).pooled
        views = [parts.views(columns, randomness(len(held_out), step=-1 - i))[i] for i in (0, 1)]
        one, two = (parts.encoder(view).pooled for view in views)
    assert found == pytest.approx(
        {"rankme": rankme(clean), "alignment": alignment(one, two), "uniformity": uniformity(clean),
         "dimension_std": dimension_std(clean)}
    )  # fmt: skip


def test_full_adds_lidar_and_alpha_req():
    parts = build_components(compose(*TINY))
    found = quality(parts, full=True)(parts.encoder)
    assert set(found) == NAMES | {"lidar", "alpha_req", "alpha_req_r2"}


def test_measuring_does_not_change_the_bits(tmp_path):
    ends = []
    for k, option in enumerate(("none", "full")):
        folder = tmp_path / str(k)
        folder.mkdir()
        trainer = make_trainer(folder, *TINY, "train.steps=4", "log.every=1", f"log.quality={option}")
        trainer.fit()
        ends.append({**trainer.encoder.state_dict(), **trainer.objective.state_dict()})
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert all(("probe/rankme" in line) == (option == "full") for line in lines)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_collapsed_encoder_is_named_once():
    parts = build_components(compose(*TINY))
    told = []
    measure_quality = quality(parts, warn=told.append)
    last = parts.encoder.trunk[8]
    with torch.no_grad():  # the last BatchNorm forgets its input: one feature for every sample
        last.weight.zero_()
        last.bias.fill_(1.0)
    for _ in range(3):
        measure_quality(parts.encoder)
    assert len(told) == 3
    assert {text.split(" ")[0] for text in told} == {"rankme", "uniformity", "dimension_std"}
    assert any("dimension_std" in text and "is below" in text and "complete collapse" in text for text in told)


def test_few_samples_are_not_judged():
    parts = build_components(compose("dataset=synthetic", "dataset.num_samples=30", "dataset.size=16"))
    assert quality(parts)(parts.encoder) == {}


@pytest.fixture(scope="module")
def supervised():
    config = compose(*TINY, "objective.form=supervised", "objective.label=label", "objective.norm=layer")
    return config, build_components(config)


def test_a_supervised_objective_reads_the_labels_and_says_so(supervised, tmp_path):
    config, parts = supervised
    index = torch.tensor([3, 1, 4])
    assert torch.equal(parts.dataset.fetch(index)["label"], parts.dataset.labels[index])
    found = measure(config, parts, make_trainer(tmp_path, *TINY).compute, KNN(max_samples=50), budget=15.0)
    metrics = found.metrics
    assert found.headline == "knn_top1" and all(
        "training used labels" in metric.protocol for metric in metrics.values()
    )


def test_supervised_positives_are_the_class(supervised, tmp_path):
    """One step's loss against a loop over SupCon's equation 2."""
    trainer = make_trainer(tmp_path, *TINY, "train.precision=fp32", "objective.form=supervised", "objective.label=y",
                           "objective.norm=layer")  # fmt: skip
    loss, outputs = trainer.train_step(next(trainer.loader.batches(0)))
    z, y = torch.cat([outputs["z1"], outputs["z2"]]).double(), torch.cat([outputs["label"]] * 2)
    z = F.normalize(z, dim=1)
    expected = 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        level = torch.logsumexp(torch.stack([z[i] @ z[j] / 0.2 for j in others]), 0)
        positives = [j for j in others if y[j] == y[i]]
        expected -= sum(z[i] @ z[j] / 0.2 - level for j in positives) / len(positives)
    assert loss.total.item() == pytest.approx(float(expected) / len(z), rel=1e-5)


def test_without_labels_there_is_nothing_to_supervise(tmp_path):
    with pytest.raises(UserError, match="this dataset has no labels"):
        from support.modalities import vector_dataset

        from sslcli.components import readable

        objective = build_components(compose(*TINY, "objective.form=supervised", "objective.label=label")).objective
        readable(vector_dataset(), objective)
