"""The raw input as a baseline: pixels as they are, vectors standardised."""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler
from support.helpers import make_context
from support.modalities import vector_dataset

from sslcli.data.base import Columns, with_held_out
from sslcli.data.synthetic import synthetic
from sslcli.evaluation.baselines import raw
from sslcli.evaluation.knn import KNN
from sslcli.types import Field, Spec


def test_the_raw_input_of_vectors_is_standardised_and_that_of_pixels_is_not():
    vectors = vector_dataset()
    bank, queries = torch.arange(100), torch.arange(100, 128)
    rows, queried = raw(make_context(vectors), bank, vectors, queries)
    torch.testing.assert_close(torch.cat([rows, queried]), (vectors.columns["vector"] - 1) / 3)
    images = synthetic(num_samples=50, size=8)
    rows, _ = raw(make_context(images), torch.arange(20), images, torch.arange(5))
    assert torch.equal(rows, images.fetch(torch.arange(20))["image"].float().flatten(1))


def test_on_breast_cancer_the_baseline_is_that_of_standardised_numbers():
    """As it was, the column with the largest unit was all that counted, and a gain of six points was none."""
    x, y = load_breast_cancer(return_X_y=True)
    scaler = StandardScaler().fit(x)
    plain = Field("vector", (30,), torch.float32)
    fields = (plain, Field("vector", (30,), torch.float32, mean=tuple(scaler.mean_), std=tuple(scaler.scale_)))
    columns = {"vector": torch.from_numpy(x).float()}
    made = [with_held_out(Columns(Spec(vector=f), columns, torch.from_numpy(y)), None, 0.2) for f in fields]
    before, now = (KNN()(make_context(d))["knn_top1"].baselines["raw_input"] for d in made)
    assert before < 0.93 < 0.95 < now
