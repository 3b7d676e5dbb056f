"""TF-IDF beside the features of texts, against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from support.helpers import make_context
from support.modalities import Bag

from sslcli.data.base import Columns
from sslcli.evaluation.knn import KNN
from sslcli.evaluation.linear import Linear
from sslcli.evaluation.sparse_rows import SparseRows, logistic_regression, nearest_rows
from sslcli.evaluation.tfidf import Grams, Tfidf
from sslcli.types import Field, Spec

FIELD = Field("tokens", (12,), torch.int32, 60, pad=0, mask=4, special=(2, 3))


def texts(count, seed=0):
    """Ids of three classes: order tells the first two apart, words the third; begin, 1 to 9 words, end, padding."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    ids = np.zeros((count, 12), np.int32)
    for row, label in zip(ids, labels):
        body = rng.integers(20, 60, rng.integers(4, 9)).tolist()
        place = int(rng.integers(0, len(body)))
        body[place:place] = [[5, 6], [6, 5], [7, 8]][label]
        row[: min(len(body), 10) + 2] = [2, *body[:10], 3]
    return torch.from_numpy(ids), torch.from_numpy(labels)


def dataset(count=400, held_out=200):
    (ids, labels), (asked, truth) = texts(count), texts(held_out, seed=1)
    train = Columns(Spec(text=FIELD), {"text": ids}, labels)
    train.held_out = Columns(Spec(text=FIELD), {"text": asked}, truth)
    return train


def words(ids):
    return [" ".join(f"w{i}" for i in row if i not in (0, 2, 3)) for row in ids.tolist()]


def grams(ids, pieces=64):
    return Grams.of((part.numpy() for part in ids.split(pieces)), FIELD)


def dense(rows):
    return rows.matrix().to_dense().numpy()


def name(code):
    """What scikit-learn calls a gram."""
    return f"w{code}" if code < FIELD.vocab else f"w{code // FIELD.vocab - 1} w{code % FIELD.vocab}"


@pytest.fixture(scope="module")
def rows():
    """Ours of bank and queries, and scikit-learn's with its columns in our order."""
    bank, queries = texts(400)[0], texts(200, seed=1)[0]
    fitted, vectorizer = Tfidf(grams(bank)), TfidfVectorizer(ngram_range=(1, 2), min_df=2)
    theirs = vectorizer.fit_transform(words(bank)).toarray(), vectorizer.transform(words(queries)).toarray()
    columns = [vectorizer.vocabulary_[name(code)] for code in fitted.codes.tolist()]
    assert len(columns) == theirs[0].shape[1]
    return (fitted.rows(grams(bank)), fitted.rows(grams(queries, pieces=7))), [part[:, columns] for part in theirs]


def test_the_rows_are_scikit_learns(rows):
    for ours, theirs in zip(*rows):
        np.testing.assert_allclose(dense(ours), theirs, atol=1e-6)


def test_rows_are_taken_and_transposed(rows):
    bank = rows[0][0]
    index = torch.tensor([5, 3, 3, 399])
    np.testing.assert_array_equal(dense(bank.take(index)), dense(bank)[index])
    np.testing.assert_array_equal(dense(bank.transposed()), dense(bank).T)


def test_the_classifier_converges_to_scikit_learns(rows):
    (bank, queries), _ = rows
    labels = texts(400)[1]
    ours = logistic_regression(bank, labels, 3, 10.0, steps=500)
    theirs = LogisticRegression(C=10, tol=1e-8, max_iter=5000).fit(dense(bank), labels)
    probabilities = torch.from_numpy(theirs.predict_proba(dense(queries))).double()
    torch.testing.assert_close(ours.logits(queries).double().softmax(1), probabilities, atol=5e-3, rtol=0)


def test_several_labels_have_a_classifier_each(rows):
    (bank, queries), _ = rows
    labels = torch.stack([texts(400)[1] == 0, texts(400)[1] != 2], 1)
    ours = logistic_regression(bank, labels, 2, 10.0, steps=500).logits(queries).sigmoid()
    model = OneVsRestClassifier(LogisticRegression(C=10, tol=1e-8, max_iter=5000)).fit(dense(bank), labels)
    torch.testing.assert_close(
        ours.double(), torch.from_numpy(model.predict_proba(dense(queries))).double(), atol=5e-3, rtol=0
    )


def test_the_nearest_are_those_of_dense_rows(rows):
    (bank, queries), _ = rows
    similarity, position = nearest_rows(bank, queries, 5)
    every = torch.from_numpy(dense(queries) @ dense(bank).T)
    torch.testing.assert_close(similarity, every.topk(5).values)
    torch.testing.assert_close(every.gather(1, position), similarity)


def test_a_text_without_a_known_gram_is_zero():
    bank, _ = texts(50)
    unknown = torch.zeros(2, 12, dtype=torch.int32)
    unknown[0, :3] = torch.tensor([2, 10, 3])  # the other has padding only
    found = Tfidf(grams(bank)).rows(grams(unknown))
    assert len(found) == 2 and not dense(found).any()
    empty = Tfidf(grams(unknown[1:])).rows(grams(bank))
    assert isinstance(empty, SparseRows) and not dense(empty).any() and len(empty) == 50


def test_tfidf_stands_beside_every_number_of_a_text_and_knows_orders_that_a_bag_does_not():
    data = dataset()
    torch.manual_seed(0)
    encoder = Bag(data.spec, dropout=0.0)
    context = make_context(data, trained=encoder, random_init=encoder)
    linear = Linear(steps=100, labels=(1.0, 0.2))(context)
    for name in ("linear_top1", "linear_balanced_accuracy", "linear_macro_f1", "linear_top1_20pct"):
        assert set(linear[name].baselines) == {"tfidf", "random_init"}
    assert linear["linear_top1"].baselines["tfidf"] > 0.9 > 0.8 > linear["linear_top1"].value
    assert "two or more bank texts have, fitted on the bank, by L-BFGS" in linear["linear_top1"].protocol
    knn = KNN(whiten=4)(context)
    assert set(knn["knn_top1"].baselines) == {"tfidf", "random_init"}
    assert set(knn["knn_whitened_top1"].baselines) == {"random_init"}
    assert "tfidf" in knn["knn_top1"].protocol and "tfidf" not in knn["knn_whitened_top1"].protocol
