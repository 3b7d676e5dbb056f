"""Errors of numbers: against bootstraps over the queries, closed forms and simulations."""

import math

import numpy as np
import pytest
import torch
from support.helpers import make_context
from support.modalities import Noisy

from sslcli.data.base import Columns
from sslcli.evaluation.base import Metric, compared, table
from sslcli.evaluation.geometry import Geometry
from sslcli.evaluation.information_scores import club_scores, gaussian_bias, gaussian_scores, info_nce_scores
from sslcli.evaluation.knn import KNN
from sslcli.evaluation.label_free import spread
from sslcli.evaluation.label_free_scores import SCORES, Drawn
from sslcli.evaluation.linear import Linear
from sslcli.evaluation.mutual_information import MutualInformation
from sslcli.evaluation.standard_errors import standard_error
from sslcli.objectives.losses.densities import club, gaussian_information
from sslcli.objectives.losses.estimates import info_nce
from sslcli.run_dir.measurements import number, with_error
from sslcli.types import Field, Spec

DRAWS = 200  # of a bootstrap, whose own error is then 1 / sqrt(2 * 200) = 5 %


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vectors(n, classes=4, dim=6, seed=0):
    """Rows that say nothing about their labels."""
    labels = [torch.randint(classes, (n,), generator=torch.Generator().manual_seed(seed + k)) for k in (0, 1)]
    spec = Spec(vector=Field("vector", (dim,), torch.float32))
    dataset = Columns(spec, {"vector": normal(n, dim, seed=seed)}, labels[0])
    dataset.held_out = Columns(spec, {"vector": normal(n, dim, seed=seed + 1)}, labels[1])
    return dataset


def test_errors_of_accuracies_and_of_their_gain_agree_with_a_bootstrap_over_queries():
    random = np.random.default_rng(0)
    trained = random.random(400) < 0.8
    good = np.where(random.random(400) < 0.9, trained, random.random(400) < 0.7)  # mostly right on the same queries
    scores = {"trained": trained, "weak": random.random(400) < 0.3, "good": good}
    context = make_context(vectors(10))
    metric = compared(
        context, {name: torch.tensor(s) for name, s in scores.items()}, "p", unit="share", higher_is_better=True
    )
    draws = random.integers(400, size=(4000, 400))
    assert metric.value == trained.mean() and metric.baselines == {
        name: scores[name].mean() for name in ("weak", "good")
    }
    assert metric.standard_error == pytest.approx((trained.mean() * (1 - trained.mean()) / 400) ** 0.5)
    assert metric.standard_error == pytest.approx(trained[draws].mean(1).std(), rel=0.05)
    assert metric.gain_standard_error == pytest.approx((trained[draws].mean(1) - good[draws].mean(1)).std(), rel=0.05)
    unpaired = math.hypot(metric.standard_error, standard_error(torch.tensor(good)))
    assert metric.gain_standard_error < 0.5 * unpaired
    lower = compared(context, {"trained": 1.0, "weak": 2.0}, "p", unit="", higher_is_better=False)
    assert lower.standard_error is None and lower.gain_standard_error is None  # there are no queries


def test_errors_of_label_free_metrics_agree_with_a_bootstrap_over_samples():
    clean = normal(400, 16) @ normal(16, 16, seed=1)
    one, two = (clean + 0.5 * normal(400, 16, seed=seed) for seed in (2, 3))
    groups = clean[:120, None] + 0.5 * normal(120, 6, 16, seed=4)
    values = spread(clean, one, two, groups)
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(DRAWS):
        i, j = (torch.randint(n, (n,), generator=generator) for n in (400, 120))
        found.append(spread(clean[i], one[i], two[i], groups[j]))
    assert set(values) == set(SCORES)
    for name, value in values.items():
        scores = SCORES[name](Drawn(clean, one, two, groups))
        assert scores.mean().item() == pytest.approx(value, rel=1e-6), name
        bootstrap = np.std([draw[name] for draw in found])
        assert standard_error(scores) == pytest.approx(bootstrap, rel=0.15), name


def test_the_rank_of_fewer_samples_than_dimensions_and_of_dead_features_has_an_error_too():
    for x in (normal(20, 50), torch.cat([normal(50, 4), torch.zeros(50, 6)], 1), torch.zeros(30, 3)):
        scores = SCORES["rankme"](Drawn(x, x, x))
        assert scores.isfinite().all() and scores.mean().item() == pytest.approx(spread(x, x, x)["rankme"], rel=1e-6)


def test_errors_of_mutual_information_agree_with_a_bootstrap_over_pairs():
    x = normal(300, 4).double()
    y = 0.8 * x + 0.6 * normal(300, 4, seed=1)
    critic = 0.5 * x @ y.T
    estimates = [
        (gaussian_scores(x, y), lambda i: gaussian_information(x[i], y[i], 1e-3)),
        (info_nce_scores(critic), lambda i: info_nce(critic[i][:, i])),
        (club_scores(critic), lambda i: club(critic[i][:, i])),
    ]
    generator = torch.Generator().manual_seed(2)
    draws = [torch.randint(300, (300,), generator=generator) for _ in range(DRAWS)]
    for scores, estimate in estimates:
        assert scores.mean().item() == pytest.approx(float(estimate(torch.arange(300))))
        assert standard_error(scores) == pytest.approx(np.std([float(estimate(i)) for i in draws]), rel=0.15)


@pytest.mark.parametrize(("count", "dim"), [(81, 32), (60, 5), (3000, 8)])
def test_the_bias_of_the_gaussian_estimate_is_that_of_pairs_that_share_nothing(count, dim):
    found = [
        float(gaussian_information(normal(count, dim, seed=k).double(), normal(count, dim, seed=99 + k).double(), 0.0))
        for k in range(30)
    ]
    assert gaussian_bias(count, dim) == pytest.approx(np.mean(found), abs=4 * np.std(found) / 30**0.5)
    if count == 3000:
        assert gaussian_bias(count, dim) == pytest.approx(dim**2 / (2 * count), rel=0.02)
    assert gaussian_bias(2 * dim, dim) == math.inf


def test_labels_that_say_nothing_read_chance_within_two_standard_errors():
    dataset = vectors(1000)
    for probe in (KNN(max_samples="all"), Linear(steps=30, labels=[1.0], lrs=[3.0], weight_decays=[1e-3])):
        for name, metric in probe(make_context(dataset)).items():
            if name.endswith("macro_f1"):  # whose chance depends on how often each class is predicted
                continue
            binomial = (0.25 * 0.75 / 1000) ** 0.5  # of balanced classes, where the mean recall is nearly the accuracy
            assert metric.standard_error == pytest.approx(binomial, rel=0.05 if name.endswith("top1") else 0.1)
            assert abs(metric.value - 0.25) <= 2 * metric.standard_error, name


# --- what is no estimate --------------------------------------------------------------------------


def test_an_estimate_from_few_pairs_is_marked_by_its_bias():
    """81 pairs that share nothing, of 2 x 32 components: 12 nats, and all of them bias."""
    context = make_context(vectors(81, dim=32), Noisy(100.0))
    metric = MutualInformation(steps=1, hidden_dim=4)(context)["mi_gaussian"]
    assert metric.bias == pytest.approx(gaussian_bias(81, 32)) and metric.bias > metric.standard_error
    assert f"(bias +{metric.bias:.2g})" in table({"mi_gaussian": metric})[1]
    assert metric.to_json()["bias"] == metric.bias
    many = Metric(3.0, "p", unit="nats", higher_is_better=None, standard_error=0.1, bias=0.05)
    assert with_error(many) == "3.00 ± 0.10 nats"


def test_too_few_samples_are_said():
    few = make_context(vectors(60, dim=32), Noisy(100.0))
    assert "mi_gaussian" not in MutualInformation(steps=1, hidden_dim=4)(few)
    assert few.left_out == ["mi_gaussian: 60 pairs of 2 x 32 components are too few, it needs 65"]
    for probe, said in (
        (MutualInformation(), "mutual information: 12 held-out pairs are too few, it needs 20"),
        (Geometry(), "rankme and its like: 12 samples are too few, they need 16"),
    ):
        context = make_context(vectors(12), Noisy(100.0))
        assert probe(context) == {} and context.left_out == [said]


@pytest.mark.parametrize(
    ("value", "unit", "error", "text"),
    [
        (0.85521, "share", 0.0035, "85.52 ± 0.35 %"),
        (0.530864, "share", 0.0554, "53.1 ± 5.5 %"),
        (0.5, "share", 0.118, "50 ± 12 %"),
        (0.85521, "share", None, "85.52 %"),
        (1.0, "share", 0.0, "100.00 %"),
        (373.21, "", 4.26, "373.2 ± 4.3"),
        (17.284, "nats", 0.0996, "17.28 ± 0.10 nats"),
        (-1.49321, "", 0.00613, "-1.4932 ± 0.0061"),
        (1.25, "", None, "1.2500"),
    ],
)
def test_digits_follow_the_error(value, unit, error, text):
    assert with_error(Metric(value, "p", unit=unit, higher_is_better=True, standard_error=error)) == text
    assert number(value, unit, error).split(" ")[0] == text.split(" ")[0]
