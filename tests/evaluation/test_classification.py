"""Scores of classes against scikit-learn's and a slow loop, several labels a sample, and numbers of any size."""

import numpy as np
import pytest
import torch
from sklearn import metrics as theirs
from support.helpers import make_context

from sslcli.data.base import Columns
from sslcli.data.selection import balanced
from sslcli.evaluation.classification import balanced_accuracy, macro_f1, mean_average_precision
from sslcli.evaluation.knn import KNN
from sslcli.evaluation.linear import Linear
from sslcli.types import Field, Spec

SPEC = Spec(vector=Field("vector", (8,), torch.float32))


def drawn(seed, classes=7, n=300):
    """Classes of uneven sizes, and predictions that never name one of them and name one that no query has."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(classes - 1, n, p=np.arange(1, classes) / np.arange(1, classes).sum())
    predicted = np.where(generator.random(n) < 0.6, truth, generator.integers(1, classes, n))
    return torch.from_numpy(predicted), torch.from_numpy(truth)


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn(seed):
    predicted, truth = drawn(seed)
    assert float(balanced_accuracy(predicted, truth).mean()) == pytest.approx(
        theirs.balanced_accuracy_score(truth, predicted), abs=1e-12
    )
    wanted = theirs.f1_score(truth, predicted, average="macro")
    assert float(macro_f1(predicted, truth).mean()) == pytest.approx(wanted, abs=1e-12)
    loop = []  # by the definition, class by class
    for c in sorted({*predicted.tolist(), *truth.tolist()}):
        hits = sum(p == t == c for p, t in zip(predicted.tolist(), truth.tolist()))
        loop.append(2 * hits / (int((predicted == c).sum()) + int((truth == c).sum())))
    assert np.mean(loop) == pytest.approx(wanted)


def test_average_precision_is_that_of_scikit_learn_with_ties_too():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(200, 5, generator=generator) < torch.tensor([0.5, 0.1, 0.02, 0.3, 0.0])
    scores = (truth * 0.4 + torch.rand(200, 5, generator=generator)).mul(8).round()  # many are equal
    some = [c for c in range(5) if truth[:, c].any()]
    wanted = np.mean([theirs.average_precision_score(truth[:, c], scores[:, c]) for c in some])
    assert float(mean_average_precision(scores, truth).mean()) == pytest.approx(wanted, abs=1e-9)


def test_errors_of_scores_are_those_of_a_bootstrap():
    predicted, truth = drawn(0, classes=4, n=400)
    for score, reference in (
        (balanced_accuracy, lambda t, p: theirs.recall_score(t, p, average="macro", labels=t.unique())),
        (macro_f1, lambda t, p: theirs.f1_score(t, p, average="macro")),
    ):
        generator = np.random.default_rng(0)
        found = []
        for _ in range(120):
            index = generator.integers(0, 400, 400)
            found.append(reference(truth[index], predicted[index]))
        error = float(score(predicted, truth).std(correction=0)) / 400**0.5
        assert error == pytest.approx(np.std(found), rel=0.25)


def classes_of(number, n=120):
    """Three classes that lie apart, with the labels ``number``."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(n) % 3
    x = torch.randn(n, 8, generator=generator) + 3 * torch.nn.functional.one_hot(kind, 8)
    return Columns(SPEC, {"vector": x}, torch.tensor(number)[kind])


@pytest.mark.parametrize("probe", [KNN(k=5, whiten=0), Linear(steps=20, lrs=[3.0], weight_decays=[0.0], labels=[1.0])])
def test_labels_are_names_and_not_counts(probe):
    """Tables of 10^15 classes would not fit into any memory."""
    values = []
    for number in ([0, 1, 2], [7, 123_456, 10**15]):
        dataset = classes_of(number)
        dataset.held_out = classes_of(number, 60)
        assert torch.equal(balanced(dataset.labels, 30), balanced(classes_of([0, 1, 2]).labels, 30))
        values.append({name: metric.value for name, metric in probe(make_context(dataset)).items()})
    assert values[0] == values[1]
    name = next(iter(values[0])).removesuffix("_top1")
    assert {f"{name}_top1", f"{name}_balanced_accuracy", f"{name}_macro_f1"} == values[0].keys()


def several(n, seed):
    """Each of three labels is there where a number of the vector is positive."""
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return Columns(SPEC, {"vector": x}, x[:, :3] > 0.3, ("red", "green", "blue"))


def test_several_labels_a_sample_have_a_mean_average_precision():
    dataset = several(600, 0)
    dataset.held_out = several(200, 1)
    bank, queries = dataset.columns["vector"], dataset.held_out.columns["vector"]
    truth = dataset.held_out.labels
    metric = KNN(k=10, whiten=0)(make_context(dataset))["knn_map"]
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], bank[None], dim=2)
    scores = torch.zeros(200, 3)
    for q in range(200):  # each neighbour votes for all its labels
        for i in cosine[q].topk(10).indices:
            scores[q] += (cosine[q, i] / 0.07).exp() * dataset.labels[i]
        scores[q] /= (cosine[q].topk(10).values / 0.07).exp().sum()
    wanted = np.mean([theirs.average_precision_score(truth[:, c], scores[:, c]) for c in range(3)])
    assert metric.value == pytest.approx(wanted, abs=1e-4) and metric.headline and metric.standard_error > 0
    linear = Linear(steps=150, lrs=[30.0, 100.0], weight_decays=[0.0], labels=[1.0])(make_context(dataset))[
        "linear_map"
    ]
    assert 0.97 < linear.value <= 1 and linear.value > metric.value  # a linear rule made the labels
    assert "logistic regression" in linear.protocol
