"""Probes against scikit-learn, closed forms and chance."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from support.helpers import make_context
from support.marks import rest_is_slow

from sslcli.data.base import Columns
from sslcli.data.synthetic import synthetic
from sslcli.evaluation.base import Metric, NoProbe, Several
from sslcli.evaluation.geometry import Geometry
from sslcli.evaluation.knn import KNN, knn_accuracy, nearest
from sslcli.evaluation.label_free import rankme
from sslcli.evaluation.mutual_information import MutualInformation
from sslcli.evaluation.pca import principal_axes, whitened
from sslcli.evaluation.votes import vote
from sslcli.types import Field, Spec


def clusters(n, classes=5, dim=8, noise=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    return centres[labels] + noise * torch.randn(n, dim, generator=generator), labels


def knn_predict(bank, labels, queries, *, k, temperature, **options):
    similarity, place = nearest(bank, queries, k, **options)
    return vote(similarity, labels[place], temperature=temperature, num_classes=int(labels.max()) + 1)


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
    (accuracy,) = knn_accuracy(bank, labels, queries, truth, ks=[k], temperature=temperature)
    assert accuracy == pytest.approx(model.score(queries.double().numpy(), truth.numpy()))
    assert 0.25 < accuracy < 0.95  # neither chance nor trivial


@pytest.mark.parametrize(("chunk", "bank_chunk"), [(1, 33), (7, 3), (200, 1), (10_000, 10_000)])
def test_knn_in_chunks_has_scikit_learns_neighbours(chunk, bank_chunk):
    (bank, labels), (queries, _) = clusters(100), clusters(200, seed=1)
    model = sklearn_knn(bank, labels, 10, 0.1)
    similarity, place = nearest(bank, queries, 10, chunk=chunk, bank_chunk=bank_chunk)
    distances, neighbours = model.kneighbors(queries.double().numpy())
    assert place.tolist() == neighbours.tolist()
    np.testing.assert_allclose(1 - similarity.numpy(), distances, atol=1e-6)
    theirs = model.predict(queries.double().numpy())
    options = {"chunk": chunk, "bank_chunk": bank_chunk}
    assert knn_predict(bank, labels, queries, k=10, temperature=0.1, **options).tolist() == theirs.tolist()


def test_memory_is_bounded_by_the_chunks():
    """2,000 queries in a bank of 2,000 would be 16 MB of similarities; in chunks of 200 by 500 it is 0.4 MB."""
    bank, queries = torch.randn(2000, 4), torch.randn(2000, 4)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        nearest(bank, queries, 5, chunk=200, bank_chunk=500)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 1e6


def test_several_k_are_one_search():
    (bank, labels), (queries, truth) = clusters(300), clusters(200, seed=1)
    ks = [20, 1, 100, 500]
    found = knn_accuracy(bank, labels, queries, truth, ks=ks, temperature=0.1)
    theirs = [sklearn_knn(bank, labels, k, 0.1).score(queries.double().numpy(), truth.numpy()) for k in ks]
    assert found == pytest.approx(theirs) and len({*found}) > 2


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
    assert knn_accuracy(bank, labels, queries, truth, ks=[20], temperature=0.07)[0] > 0.95
    # All queries of a cluster err together, so the error of chance is that of the clusters' votes.
    random_truth = truth[torch.randperm(2000, generator=torch.Generator().manual_seed(1))]
    (chance,) = knn_accuracy(bank, permuted, queries, random_truth, ks=[20], temperature=0.07)
    assert chance == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / 2000) ** 0.5)


# --- the probe ------------------------------------------------------------------------------------


def pixels(dataset, index):
    return dataset.fetch(index)["image"].float().flatten(1)


def test_the_probe_reports_value_baselines_and_protocol():
    dataset = synthetic(num_samples=500, num_classes=5, size=12)
    metrics = KNN(k=7, temperature=0.1, max_samples="all")(make_context(dataset))
    assert list(metrics) == ["knn_top1", "knn_balanced_accuracy", "knn_macro_f1", "knn_whitened_top1"]
    metric = metrics["knn_top1"]
    assert set(metric.baselines) == {"raw_input", "centred", "pca64", "random_init"}
    for words in ("7-NN", "cosine", "0.1", "bank 400 train", "queries 100 held out"):
        assert words in metric.protocol
    assert metric.value == metric.baselines["raw_input"] > 0.95
    assert 0.05 < metric.baselines["random_init"] < 0.4
    flat = metric.to_json()
    assert flat["value"] == metric.value and flat["random_init"] == metric.baselines["random_init"]
    assert flat["split"] == "held out" and flat["seed"] == 0 and "samples" not in flat  # nothing was left to the clock


def test_the_first_k_is_the_headline():
    dataset = synthetic(num_samples=500, num_classes=5, size=12)
    one = KNN(k=50, max_samples="all")(make_context(dataset))
    metrics = KNN(k=[50, 1], max_samples="all")(make_context(dataset))
    beside = ["knn_balanced_accuracy", "knn_macro_f1"]
    assert list(metrics) == ["knn_top1", *beside, "knn_top1_k1", "knn_whitened_top1", "knn_whitened_top1_k1"]
    assert metrics["knn_top1"] == one["knn_top1"] and "1-NN" in metrics["knn_top1_k1"].protocol


def test_a_further_control_stands_beside_the_others():
    """Whatever is given by name, such as the weights that a run began from."""
    dataset = synthetic(num_samples=300, num_classes=5, size=8)
    flat, deaf = make_context(dataset).encoders.values()
    metrics = KNN(max_samples="all")(make_context(dataset, trained=flat, random_init=deaf, start=flat))
    baselines = metrics["knn_top1"].baselines
    assert baselines["start"] == metrics["knn_top1"].value > baselines["random_init"]


def test_the_baselines_are_scikit_learns_on_raw_centred_and_pca_inputs():
    dataset = synthetic(num_samples=400, num_classes=40, size=10, channels=1)
    generator = torch.Generator().manual_seed(0)
    x = dataset.dataset.columns["image"].float()
    # So noisy that errors occur.
    dataset.dataset.columns["image"] = x + 60 * torch.randn(x.shape, generator=generator)
    baselines = KNN(k=5, temperature=0.1, max_samples="all")(make_context(dataset))["knn_top1"].baselines
    bank, queries = (pixels(part, torch.arange(len(part))).double() for part in (dataset, dataset.held_out))
    pca = PCA(64, svd_solver="full").fit(bank.numpy())
    inputs = {
        "raw_input": (bank, queries),
        "centred": (bank - bank.mean(0), queries - bank.mean(0)),
        "pca64": tuple(torch.from_numpy(pca.transform(part.numpy())) for part in (bank, queries)),
    }
    for name, (b, q) in inputs.items():
        theirs = sklearn_knn(b, dataset.labels, 5, 0.1).score(q.numpy(), dataset.held_out.labels.numpy())
        assert baselines[name] == pytest.approx(theirs, abs=1e-9), name
    assert len({*baselines.values()}) > 2 and max(baselines.values()) < 1


@pytest.mark.parametrize("most", [10, 57, 10_000])
def test_max_samples_bounds_bank_and_queries_and_keeps_classes_balanced(most):
    dataset = synthetic(num_samples=500, num_classes=5, size=8)
    asked = []
    metric = KNN(max_samples=most)(make_context(dataset, asked=asked))["knn_top1"]
    assert f"bank {min(most, 400)} train, queries {min(most, 100)} held out" in metric.protocol
    assert [part for part, _ in asked] == [dataset, dataset.held_out] * 3  # raw input, trained and untrained
    for part, index in asked:
        assert len(index) == min(most, len(part)) == len(index.unique())
        if most < 60:
            counts = torch.bincount(part.labels[index], minlength=5)
            assert counts.max() - counts.min() <= 1
    for (_, a), (_, b) in zip(asked[:4], asked[2:]):
        assert torch.equal(a, b)


def test_auto_takes_everything_when_the_budget_allows_and_little_when_it_does_not():
    dataset = synthetic(num_samples=2000, num_classes=5, size=4)
    for budget, settled, bank in ((1e6, None, "1,600"), (0.0, None, "500"), (0.0, 1000, "1,000")):
        context = make_context(dataset)
        context.budget, context.settled = budget, settled
        metric = KNN(max_samples="auto")(context)["knn_top1"]
        assert f"bank {bank} train" in metric.protocol and metric.samples is not None


def test_features_are_extracted_once_for_all_probes():
    dataset, asked = synthetic(num_samples=500, num_classes=5, size=8), []
    parts = {
        name: {"_target_": "sslcli.evaluation.knn.KNN", "k": k, "max_samples": 100}
        for name, k in (("one", 5), ("two", 1))
    }
    metrics = Several(parts=parts)(make_context(dataset, asked=asked))
    assert "1-NN" in metrics["knn_top1"].protocol
    assert len(asked) == 8  # two splits by two encoders, and the pixels twice, which are too many to keep


def test_more_neighbours_than_samples_are_said_to_be_fewer():
    metric = KNN(k=50, max_samples=20)(make_context(synthetic(num_samples=500, size=4)))["knn_top1"]
    assert metric.protocol.startswith("weighted 20-NN")


@pytest.mark.parametrize(
    "probe", [Geometry(max_samples=32, lidar_samples=16), MutualInformation(max_samples=40, steps=2)]
)
def test_what_reads_no_labels_reads_all_classes_of_data_in_their_order(probe):
    """Folders are read by path, so the first samples are of one class."""
    labels = torch.arange(8).repeat_interleave(100)
    rows = labels[:, None] + torch.randn(800, 4, generator=torch.Generator().manual_seed(0))
    dataset = Columns(Spec(vector=Field("vector", (4,), torch.float32)), {"vector": rows}, labels)
    dataset.held_out = Columns(dataset.spec, {"vector": rows + 0.1}, labels)
    asked = []
    probe(make_context(dataset, asked=asked))
    assert asked
    for part, index in asked:
        assert len(index.unique()) == len(index) and len(part.labels[index].unique()) >= 6


def test_samples_without_a_label_are_neither_in_the_bank_nor_asked():
    dataset = synthetic(num_samples=500, num_classes=5, size=8)
    for part in (dataset, dataset.held_out):
        part.labels = part.labels.masked_fill(torch.arange(len(part)) % 2 == 0, -1)
    asked = []
    metric = KNN(max_samples="all")(make_context(dataset, asked=asked))["knn_top1"]
    assert "bank 200 train, queries 50 held out" in metric.protocol and metric.value > 0.9
    assert all((part.labels[index] >= 0).all() for part, index in asked)
    dataset.labels = torch.full_like(dataset.labels, -1)
    assert KNN()(make_context(dataset)) == {}


def test_without_labels_or_a_held_out_part_there_is_nothing_to_measure():
    spec = Spec(image=Field("image", (1, 4, 4), torch.uint8))
    unlabelled = Columns(spec, {"image": torch.zeros(10, 1, 4, 4)})
    unlabelled.held_out = unlabelled
    labelled = Columns(spec, {"image": torch.zeros(10, 1, 4, 4)}, torch.zeros(10).long())
    assert KNN()(make_context(unlabelled)) == {}
    assert KNN()(make_context(labelled)) == {}
    labelled.held_out = unlabelled
    assert KNN()(make_context(labelled)) == {}
    assert NoProbe()(make_context(synthetic(num_samples=20))) == {}


def test_columns_of_ids_are_no_numbers_and_have_tfidf_instead():
    spec, ids = Spec(text=Field("tokens", (3,), torch.int64, 9)), torch.randint(9, (40, 3))
    dataset = Columns(spec, {"text": ids}, torch.arange(40) % 2)
    dataset.held_out = dataset

    baselines = KNN(max_samples="all")(make_context(dataset))["knn_top1"].baselines
    assert set(baselines) == {"tfidf", "random_init"}


@pytest.mark.parametrize(
    "wrong",
    [{"k": 0}, {"k": []}, {"k": [5, 5]}, {"temperature": 0.0}, {"max_samples": "some"}, {"max_samples": 0}],
    ids=str,
)
def test_a_wrong_setting_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KNN(**wrong)


def test_a_metric_without_baselines_is_its_value_and_protocol():
    assert Metric(0.5, "p", unit="share", higher_is_better=True).to_json() == {
        "value": 0.5, "std": None, "protocol": "p", "standard_error": None, "gain_standard_error": None,
        "unit": "share", "higher_is_better": True, "headline": False,
    }  # fmt: skip


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
    from sklearn.preprocessing import StandardScaler

    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(400, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 3
    queries = bank[:50] + 0.1
    scaler = StandardScaler().fit(bank.numpy())
    pca = PCA(5, whiten=True).fit(scaler.transform(bank.numpy()))
    ours = torch.cat(whitened(bank, queries, components=5))
    theirs = torch.from_numpy(pca.transform(scaler.transform(torch.cat([bank, queries]).numpy()))).float()
    # Up to the sign and order of the axes, and the thousandths that keep empty directions small.
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("rows", rest_is_slow([1050, 1500], 1050))  # of the rows, and of their covariance
def test_the_randomised_axes_are_the_exact_ones(rows):
    """1,100 columns with a falling spectrum: the randomised way, against an exact decomposition."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 1100, generator=generator) * 0.9 ** torch.arange(1100)
    x = x - x.mean(0)
    variance, axes = principal_axes(x, 8)
    exact, basis = torch.linalg.eigh(x.double().T @ x.double() / len(x))
    exact, basis = exact.float(), basis.float()
    torch.testing.assert_close(variance, exact[-8:].flip(0), rtol=1e-3, atol=0)
    torch.testing.assert_close(axes @ axes.T, basis[:, -8:] @ basis[:, -8:].T, rtol=0, atol=2e-2)


def test_the_axes_of_fewer_rows_than_columns_are_scikit_learns():
    x = torch.randn(40, 90, generator=torch.Generator().manual_seed(0))
    x = x - x.mean(0)
    variance, axes = principal_axes(x, 12)
    exact = PCA(12).fit(x.numpy())
    torch.testing.assert_close(variance.flip(0), torch.from_numpy(exact.explained_variance_ * 39 / 40))
    basis = torch.from_numpy(exact.components_)
    torch.testing.assert_close(axes @ axes.T, basis.T @ basis, rtol=0, atol=1e-5)
    variance, axes = principal_axes(x, 40)  # centred rows have 39 components
    assert variance[0] < 1e-6 and not axes[:, 0].any()


def test_dead_features_do_not_break_the_whitened_reading():
    bank = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
    bank[:, 10:] = 0.0
    for rows in whitened(bank, bank[:5], components=20):
        assert rows.isfinite().all()
    for rows in whitened(torch.zeros(200, 50), torch.zeros(5, 50), components=20):
        assert rows.isfinite().all()
