"""Probes against scikit-learn, closed forms and chance."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from sslcli.datasets.base import Columns
from sslcli.datasets.synthetic import synthetic
from sslcli.probes.base import Metric, NoProbe
from sslcli.probes.geometry import rankme
from sslcli.probes.knn import KNN, knn_accuracy, knn_predict
from sslcli.types import Field, Spec


def clusters(n, classes=5, dim=8, noise=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    return centres[labels] + noise * torch.randn(n, dim, generator=generator), labels


def sklearn_knn(bank, labels, k, temperature):
    model = KNeighborsClassifier(
        min(k, len(bank)),
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp((1 - distance) / temperature),
    )
    return model.fit(bank.double().numpy(), labels.numpy())


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.5), (20, 0.07), (500, 0.1)])
def test_knn_is_scikit_learns_with_cosine_and_exponential_weights(k, temperature):
    (bank, labels), (queries, truth) = clusters(300), clusters(200, seed=1)
    model = sklearn_knn(bank, labels, k, temperature)
    ours = knn_predict(bank, labels, queries, k=k, temperature=temperature)
    assert ours.tolist() == model.predict(queries.double().numpy()).tolist()
    accuracy = knn_accuracy(bank, labels, queries, truth, k=k, temperature=temperature)
    assert accuracy == pytest.approx(model.score(queries.double().numpy(), truth.numpy()))
    assert 0.25 < accuracy < 0.95  # neither chance nor trivial


@pytest.mark.parametrize("chunk", [1, 7, 200, 10_000])
def test_knn_in_chunks_is_knn_at_once(chunk):
    (bank, labels), (queries, _) = clusters(100), clusters(200, seed=1)
    theirs = sklearn_knn(bank, labels, 10, 0.1).predict(queries.double().numpy())
    assert knn_predict(bank, labels, queries, k=10, temperature=0.1, chunk=chunk).tolist() == theirs.tolist()


def test_knn_ignores_lengths_and_survives_a_tiny_temperature():
    (bank, labels), (queries, _) = clusters(100), clusters(50, seed=1)
    plain = knn_predict(bank, labels, queries, k=10, temperature=0.1)
    assert torch.equal(knn_predict(bank * 1000, labels, queries / 1000, k=10, temperature=0.1), plain)
    nearest = sklearn_knn(bank, labels, 1, 1.0).predict(queries.double().numpy())
    assert knn_predict(bank, labels, queries, k=10, temperature=1e-5).tolist() == nearest.tolist()


def test_knn_weighs_votes_by_similarity():
    """One neighbour at 0 degrees against two at 60: exp(1 / T) against 2 exp(0.5 / T)."""
    at_60 = [0.5, math.sqrt(0.75)]
    bank, labels = torch.tensor([[1.0, 0.0], at_60, at_60]), torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.0]])
    turning_point = 0.5 / math.log(2)
    for temperature, winner in ((0.98 * turning_point, 0), (1.02 * turning_point, 1)):
        assert knn_predict(bank, labels, query, k=3, temperature=temperature).item() == winner


def test_permuted_labels_read_chance():
    (bank, labels), (queries, truth) = clusters(2000, noise=0.3), clusters(2000, noise=0.3, seed=1)
    permuted = labels[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    assert knn_accuracy(bank, labels, queries, truth, k=20, temperature=0.07) > 0.95
    # All queries of a cluster err together, so the error of chance is that of the clusters' votes.
    random_truth = truth[torch.randperm(2000, generator=torch.Generator().manual_seed(1))]
    chance = knn_accuracy(bank, permuted, queries, random_truth, k=20, temperature=0.07)
    assert chance == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / 2000) ** 0.5)


# --- the probe ------------------------------------------------------------------------------------


def pixels(dataset, index):
    """An encoder that does nothing."""
    return dataset.fetch(index)["image"].float().flatten(1)


def noise(dataset, index):
    """An encoder that tells nothing."""
    return torch.randn(len(index), 16, generator=torch.Generator().manual_seed(int(index.sum())))


class Recorder:
    """An encoder that keeps what it was asked for."""

    def __init__(self):
        self.calls = []

    def __call__(self, dataset, index):
        self.calls.append((dataset, index))
        return pixels(dataset, index)


def test_the_probe_reports_value_controls_and_protocol():
    dataset = synthetic(num_samples=500, num_classes=5, size=12)
    metrics = KNN(k=7, temperature=0.1, max_samples="all")(dataset, pixels, noise, 10.0)
    assert list(metrics) == ["knn_top1", "knn_whitened_top1"]
    metric = metrics["knn_top1"]
    assert set(metric.controls) == {"raw_input", "centred", "pca64", "random_init"}
    for words in ("7-NN", "cosine", "0.1", "bank 400 train", "queries 100 held out"):
        assert words in metric.protocol
    assert metric.value == metric.controls["raw_input"] > 0.95
    assert 0.05 < metric.controls["random_init"] < 0.4
    flat = metric.to_json()
    assert flat["value"] == metric.value and flat["random_init"] == metric.controls["random_init"]


def test_the_controls_are_scikit_learns_on_raw_centred_and_pca_inputs():
    dataset = synthetic(num_samples=400, num_classes=40, size=10, channels=1)
    generator = torch.Generator().manual_seed(0)
    x = dataset.dataset.columns["image"].float()
    # So noisy that errors occur.
    dataset.dataset.columns["image"] = x + 60 * torch.randn(x.shape, generator=generator)
    controls = KNN(k=5, temperature=0.1, max_samples="all")(dataset, pixels, noise, 10.0)["knn_top1"].controls
    bank, queries = (pixels(part, torch.arange(len(part))).double() for part in (dataset, dataset.held_out))
    pca = PCA(64, svd_solver="full").fit(bank.numpy())
    inputs = {
        "raw_input": (bank, queries),
        "centred": (bank - bank.mean(0), queries - bank.mean(0)),
        "pca64": tuple(torch.from_numpy(pca.transform(part.numpy())) for part in (bank, queries)),
    }
    for name, (b, q) in inputs.items():
        theirs = sklearn_knn(b, dataset.labels, 5, 0.1).score(q.numpy(), dataset.held_out.labels.numpy())
        assert controls[name] == pytest.approx(theirs, abs=1e-9), name
    assert len({*controls.values()}) > 2 and max(controls.values()) < 1


@pytest.mark.parametrize("most", [10, 57, 10_000])
def test_max_samples_bounds_bank_and_queries_and_keeps_classes_balanced(most):
    dataset = synthetic(num_samples=500, num_classes=5, size=8)
    trained, untrained = Recorder(), Recorder()
    metric = KNN(max_samples=most)(dataset, trained, untrained, 10.0)["knn_top1"]
    assert f"bank {min(most, 400)} train, queries {min(most, 100)} held out" in metric.protocol
    for calls in (trained.calls, untrained.calls):
        assert [part for part, _ in calls] == [dataset, dataset.held_out]
        for part, index in calls:
            assert len(index) == min(most, len(part)) == len(index.unique())
            if most < 60:
                counts = torch.bincount(part.labels[index], minlength=5)
                assert counts.max() - counts.min() <= 1
    for (_, a), (_, b) in zip(trained.calls, untrained.calls):
        assert torch.equal(a, b)


def test_auto_takes_everything_when_the_budget_allows_and_little_when_it_does_not():
    dataset = synthetic(num_samples=2000, num_classes=5, size=4)
    assert "bank 1,600 train" in KNN(max_samples="auto")(dataset, pixels, noise, 1e6)["knn_top1"].protocol
    assert "bank 500 train" in KNN(max_samples="auto")(dataset, pixels, noise, 0.0)["knn_top1"].protocol


def test_without_labels_or_a_held_out_part_there_is_nothing_to_measure():
    spec = Spec(image=Field((1, 4, 4)))
    unlabelled = Columns(spec, {"image": torch.zeros(10, 1, 4, 4)})
    unlabelled.held_out = unlabelled
    labelled = Columns(spec, {"image": torch.zeros(10, 1, 4, 4)}, torch.zeros(10).long())
    assert KNN()(unlabelled, pixels, noise, 1.0) == {}
    assert KNN()(labelled, pixels, noise, 1.0) == {}
    labelled.held_out = unlabelled
    assert KNN()(labelled, pixels, noise, 1.0) == {}
    assert NoProbe()(synthetic(num_samples=20), pixels, noise, 1.0) == {}


def test_columns_of_ids_have_no_input_controls():
    spec, ids = Spec(text=Field((3,), vocab=9)), torch.randint(9, (40, 3))
    dataset = Columns(spec, {"text": ids}, torch.arange(40) % 2)
    dataset.held_out = dataset

    def embed(part, index):
        return part.fetch(index)["text"].float()

    controls = KNN(max_samples="all")(dataset, embed, embed, 1.0)["knn_top1"].controls
    assert set(controls) == {"random_init"}


@pytest.mark.parametrize(
    "wrong", [{"k": 0}, {"temperature": 0.0}, {"max_samples": "some"}, {"max_samples": 0}], ids=str
)
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KNN(**wrong)


def test_a_metric_without_controls_is_its_value_and_protocol():
    assert Metric(0.5, "p").to_json() == {"value": 0.5, "std": None, "protocol": "p"}


# --- RankMe ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 16, 100])
def test_rankme_of_an_equal_spectrum_is_the_dimension(d):
    assert rankme(torch.eye(d)) == pytest.approx(d, rel=1e-4)
    orthogonal = torch.linalg.qr(torch.randn(300, d, generator=torch.Generator().manual_seed(0)))[0]
    assert rankme(7 * orthogonal) == pytest.approx(d, rel=1e-4)


def test_rankme_of_collapsed_features_is_one():
    assert rankme(torch.ones(50, 8)) == pytest.approx(1, abs=1e-3)
    assert rankme(torch.outer(torch.arange(1.0, 51), torch.arange(1.0, 9))) == pytest.approx(1, abs=1e-3)


def test_rankme_is_the_exponential_of_the_spectrums_entropy():
    spectrum = [4.0, 2.0, 1.0, 1.0]
    p = [s / sum(spectrum) for s in spectrum]
    expected = math.exp(-sum(q * math.log(q) for q in p))
    features = torch.zeros(10, 4)
    features[:4] = torch.diag(torch.tensor(spectrum))
    assert rankme(features) == pytest.approx(expected, rel=1e-5)
    assert rankme(features * 1e-3) == pytest.approx(expected, rel=1e-5)


def test_rankme_of_all_zero_features_is_finite():
    assert math.isfinite(rankme(torch.zeros(5, 3)))


def test_whitening_is_scikit_learns_where_nothing_is_regularised():
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    from sslcli.probes.knn import whitened

    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(400, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 3
    queries = bank[:50] + 0.1
    scaler = StandardScaler().fit(bank.numpy())
    pca = PCA(5, whiten=True).fit(scaler.transform(bank.numpy()))
    ours = torch.cat(whitened(bank, queries, components=5))
    theirs = torch.from_numpy(pca.transform(scaler.transform(torch.cat([bank, queries]).numpy()))).float()
    # Up to the sign and order of the axes, and the thousandths that keep empty directions small.
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, rtol=0.02, atol=0.05)


def test_the_randomised_axes_are_the_exact_ones():
    """1,100 columns with a falling spectrum: the randomised way, against an exact decomposition."""
    from sslcli.probes.knn import principal_axes

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 1100, generator=generator) * 0.9 ** torch.arange(1100)
    x = x - x.mean(0)
    variance, axes = principal_axes(x, 8)
    exact, basis = torch.linalg.eigh(x.double().T @ x.double() / len(x))
    exact, basis = exact.float(), basis.float()
    torch.testing.assert_close(variance, exact[-8:].flip(0), rtol=1e-3, atol=0)
    torch.testing.assert_close(axes @ axes.T, basis[:, -8:] @ basis[:, -8:].T, rtol=0, atol=2e-2)


def test_dead_features_do_not_break_the_whitened_reading():
    from sslcli.probes.knn import whitened

    bank = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
    bank[:, 10:] = 0.0
    for rows in whitened(bank, bank[:5], components=20):
        assert rows.isfinite().all()
    for rows in whitened(torch.zeros(200, 50), torch.zeros(5, 50), components=20):
        assert rows.isfinite().all()
