"""Linear classification of frozen features against scikit-learn's, and what each number is made of."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from support.helpers import Flat, make_context

from sslcli.data.base import Columns
from sslcli.data.synthetic import synthetic
from sslcli.evaluation.linear import Linear, held_back
from sslcli.evaluation.softmax_regression import Scale, Setting, fit, grid
from sslcli.types import Field, Spec

CPU = torch.device("cpu")


def clusters(n, classes=5, dim=12, noise=2.0, seed=0):
    """Overlapping Gaussians with unequal columns."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    rows = centres[labels] + noise * torch.randn(n, dim, generator=generator)
    return rows * torch.linspace(0.5, 2, dim) + 1, labels


def vectors(n=1000, held_out=2000, **options):
    """Clusters as a dataset of vectors."""
    (rows, labels), (asked, truth) = clusters(n, **options), clusters(held_out, seed=1, **options)
    spec = Spec(vector=Field("vector", (rows.shape[1],), torch.float32))
    dataset = Columns(spec, {"vector": rows}, labels)
    dataset.held_out = Columns(spec, {"vector": asked}, truth)
    return dataset


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("decay", [3e-3, 3e-2])
def test_the_trainer_converges_to_scikit_learns_solution(standardise, decay):
    """Mean cross-entropy + decay / 2 |W|^2 is scikit-learn's objective with C = 1 / (decay N), bias free."""
    (rows, labels), (asked, truth) = clusters(600), clusters(4000, seed=1)
    setting = Setting(lr=5.0, weight_decay=decay, standardise=standardise)
    ours = fit(rows, labels, [setting], num_classes=5, steps=3000, batch_size=600, seed=0, device=CPU)
    scale = Scale.of(rows, standardise=standardise)
    model = LogisticRegression(C=1 / (decay * 600), tol=1e-10, max_iter=10_000)
    model.fit(scale(rows, CPU).double().numpy(), labels.numpy())
    np.testing.assert_allclose(ours.weight[:, 0].T.numpy(), model.coef_, atol=2e-3 * np.abs(model.coef_).max())
    accuracy, loss = ours.score(asked, truth)
    theirs = scale(asked, CPU).double().numpy()
    assert float(accuracy[0]) == pytest.approx(model.score(theirs, truth.numpy()), abs=1e-3)
    probabilities = model.predict_proba(theirs)[np.arange(4000), truth.numpy()]
    assert float(loss[0]) == pytest.approx(-np.log(probabilities).mean(), abs=1e-4)
    assert 0.5 < float(accuracy[0]) < 0.95


def test_settings_side_by_side_are_each_alone():
    rows, labels = clusters(300)
    settings = grid([1.0, 10.0], [0.0, 1e-2], [True])
    options = {"num_classes": 5, "steps": 60, "batch_size": 32, "seed": 3, "device": CPU}
    together = fit(rows, labels, settings, **options)
    for place, setting in enumerate(settings):
        alone = fit(rows, labels, [setting], **options)
        torch.testing.assert_close(together.weight[:, place], alone.weight[:, 0], rtol=1e-4, atol=1e-5)
    assert (together.weight[:, 0] - together.weight[:, 3]).abs().max() > 0.1


def test_a_step_is_momentum_sgd_on_the_batchs_cross_entropy():
    """Three steps against torch's optimizer and autograd, batches of all rows."""
    rows, labels = clusters(50)
    setting = Setting(lr=2.0, weight_decay=0.01, standardise=False)
    ours = fit(rows, labels, [setting], num_classes=5, steps=3, batch_size=50, seed=0, device=CPU)
    x = Scale.of(rows, standardise=False)(rows, CPU)
    weight, bias = torch.zeros(12, 5, requires_grad=True), torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.SGD([{"params": [weight], "weight_decay": 0.01}, {"params": [bias]}], 2.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(x @ weight + bias, labels).backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(ours.weight[:, 0], weight.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.bias[0], bias.detach(), rtol=1e-4, atol=1e-6)


def test_standardising_is_scikit_learns_up_to_one_factor():
    rows, _ = clusters(200)
    ours = Scale.of(rows, standardise=True)(rows, CPU)
    theirs = torch.from_numpy(StandardScaler().fit_transform(rows.double().numpy())).float()
    torch.testing.assert_close(ours * 12**0.5, theirs, rtol=5e-3, atol=5e-3)
    plain = Scale.of(rows, standardise=False)(rows, CPU)
    torch.testing.assert_close(plain * (rows / plain).mean(), rows)
    for found in (ours, plain):
        assert float(found.pow(2).sum(1).mean()) == pytest.approx(1, abs=1e-5)


def test_dead_features_stay_dead():
    rows, _ = clusters(50)
    rows[:, 3] = 7.0
    assert Scale.of(rows, standardise=True)(rows, CPU)[:, 3].abs().max() < 1e-3
    assert Scale.of(torch.zeros(5, 3), standardise=True)(torch.zeros(5, 3), CPU).isfinite().all()


# --- the probe ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_probe_is_scikit_learns_logistic_regression():
    """The same features and regulariser, in minibatches: accuracies within a tenth of a point."""
    dataset = vectors(1500, 4000)
    decay = 3e-3
    metric = Linear(labels=[1.0], lrs=[3.0], weight_decays=[decay], steps=2000)(make_context(dataset))["linear_top1"]
    scale = Scale.of(dataset.columns["vector"], standardise="with BatchNorm" in metric.protocol)
    rows, asked = (scale(part.columns["vector"], CPU).numpy() for part in (dataset, dataset.held_out))
    model = LogisticRegression(C=1 / (decay * 1500), max_iter=1000).fit(rows, dataset.labels.numpy())
    assert metric.value == pytest.approx(model.score(asked, dataset.held_out.labels.numpy()), abs=1e-3)


def test_fewer_labels_are_balanced_seeded_and_worse():
    dataset = vectors(2000)
    metrics = Linear(steps=200)(make_context(dataset))
    beside = ["linear_balanced_accuracy", "linear_macro_f1"]
    assert list(metrics) == [
        "linear_top1",
        *beside,
        "linear_top1_10pct",
    ]  # 20 labels of 5 classes: fewer than 5 a class
    assert "2,000 train labels" in metrics["linear_top1"].protocol
    assert "200 train labels" in metrics["linear_top1_10pct"].protocol
    assert metrics["linear_top1_10pct"].value < metrics["linear_top1"].value
    shares = Linear()._shares(dataset.labels, seed=0)
    assert torch.bincount(dataset.labels[shares[0.1]]).tolist() == [40] * 5
    assert not torch.equal(shares[0.1], Linear()._shares(dataset.labels, seed=1)[0.1])


def test_every_number_has_its_protocol_split_seed_and_baselines():
    dataset = synthetic(num_samples=600, num_classes=5, size=8)
    metric = Linear(steps=100)(make_context(dataset))["linear_top1"].to_json()
    assert metric["raw_input"] == pytest.approx(metric["value"], abs=0.02) and metric["random_init"] < 0.4
    assert metric["split"] == "held out" and metric["seed"] == 0
    for words in ("clean views", "480 train labels", "queries 120 held out", "learning rate", "BatchNorm", "steps"):
        assert words in metric["protocol"]


def test_permuted_labels_read_chance():
    dataset = vectors(2000, 3000)
    dataset.labels = dataset.labels[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    for metric in Linear(steps=100)(make_context(dataset)).values():
        assert metric.value == pytest.approx(0.2, abs=0.06)  # of a linear map: its errors are correlated


def test_the_held_out_split_chooses_nothing():
    """Other labels there change the score and not the setting."""
    one, two = vectors(600), vectors(600)
    two.held_out.labels = 4 - two.held_out.labels
    first, second = (Linear(labels=[1.0], steps=100)(make_context(d))["linear_top1"] for d in (one, two))
    assert first.protocol == second.protocol and first.value != second.value


def test_twice_gives_the_same_bits():
    dataset = vectors(500)
    assert Linear(steps=50)(make_context(dataset)) == Linear(steps=50)(make_context(dataset))


def test_the_encoder_is_in_eval_mode_and_left_as_it_was():
    class Normed(Flat):
        def __init__(self):
            super().__init__(12)
            self.norm = torch.nn.BatchNorm1d(12)
            self.seen = []

        def forward(self, view, mask=None):
            self.seen.append(self.training)
            encoded = super().forward(view)
            encoded.pooled = self.norm(encoded.pooled)
            return encoded

    encoder = Normed().train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    Linear(steps=5)(make_context(vectors(300), trained=encoder, random_init=encoder))
    assert set(encoder.seen) == {False} and encoder.training and encoder.norm.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_unlabelled_samples_are_left_out():
    dataset = vectors(500)
    dataset.labels[::2] = -1
    dataset.held_out.labels[:1000] = -1
    metric = Linear(labels=[1.0], steps=50)(make_context(dataset))["linear_top1"]
    assert "250 train labels, queries 1,000 held out" in metric.protocol and metric.value > 0.5
    dataset.labels = None
    assert Linear()(make_context(dataset)) == {}


def test_a_class_that_only_the_held_out_split_has_is_an_error_of_the_encoder():
    dataset = vectors(300)
    dataset.held_out.labels[:500] = 9
    assert Linear(labels=[1.0], steps=50)(make_context(dataset))["linear_top1"].value < 0.75


def test_every_class_is_kept_back_in_its_share():
    labels = torch.tensor([0] * 100 + [1] * 20 + [2] * 5)
    back = held_back(labels, 5, seed=0)
    assert torch.bincount(labels[back]).tolist() == [20, 4, 1]
    assert torch.equal(back, held_back(labels, 5, seed=0)) and not torch.equal(back, held_back(labels, 5, seed=1))


@pytest.mark.parametrize(
    "wrong", [{"lrs": []}, {"lrs": [0.0]}, {"weight_decays": [-1.0]}, {"labels": [2.0]}, {"folds": 1}], ids=str
)
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Linear(**wrong)
