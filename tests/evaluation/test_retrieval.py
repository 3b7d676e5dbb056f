"""Ranks of pairs against loops and closed forms; shuffled pairs, and features that are equal, are at chance."""

import itertools

import pytest
import torch
from support.helpers import make_context
from support.modalities import Bag, Towers, user_item_dataset
from torch.nn import functional as F

from sslcli.data.base import Columns
from sslcli.errors import UserError
from sslcli.evaluation.base import headline
from sslcli.evaluation.retrieval import Places, Retrieval, places, sparse_places
from sslcli.evaluation.sparse_rows import SparseRows
from sslcli.types import Field, Spec
from sslcli.views.base import PassThrough

COUNT, VOCAB = 300, 400
HARMONIC = sum(1 / k for k in range(1, COUNT + 1))


def pairs(shuffled=False, *, held_out=True, pad=0):
    """Texts of 6 words, each with a pair that has the same words in another order, and padding behind it."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(2, VOCAB, (COUNT, 6), generator=generator)
    pair = torch.cat([text.flip(1), torch.zeros(COUNT, 3, dtype=torch.int64)], 1)
    pair = pair[torch.randperm(COUNT, generator=generator)] if shuffled else pair
    fields = {
        n: Field("tokens", (w,), torch.int64, VOCAB, pad=pad, special=(1,)) for n, w in (("text", 6), ("pair", 9))
    }
    dataset = Columns(Spec(fields), {"text": text, "pair": pair})
    if held_out:
        train = Columns(dataset.spec, {name: column.clone() for name, column in dataset.columns.items()})
        train.held_out = dataset
        return train
    return dataset


def context_of(dataset, **options):
    torch.manual_seed(0)
    views = PassThrough(dataset.spec, dataset.spec, 2, **options)
    return make_context(dataset, views, trained=Bag(dataset.spec), random_init=Bag(dataset.spec))


def test_ranks_are_those_of_a_loop():
    torch.manual_seed(0)
    one, two = torch.randn(7, 4), torch.randn(7, 4)
    two[3] = two[5]
    one[2] = 3 * one[6]
    cosine = torch.nn.functional.cosine_similarity(one[:, None].double(), two[None].double(), dim=2)
    for found, table in zip(places(one, two, chunk=3), (cosine, cosine.T)):
        for i, row in enumerate(table):
            others = [float(value - row[i]) for j, value in enumerate(row) if j != i]
            assert int(found.tied[i]) == sum(abs(value) < 1e-6 for value in others)
            assert int(found.above[i]) == sum(value >= 1e-6 for value in others)


def test_sparse_rows_have_the_places_of_dense_ones():
    dense = [torch.randint(0, 4, (50, 9), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    dense = [F.normalize(torch.where(rows > 1, rows, 0).float(), dim=1) for rows in dense]
    dense[0][7] = 0
    starts = [F.pad((rows != 0).sum(1).cumsum(0), (1, 0)) for rows in dense]
    sparse = [SparseRows(start, rows.nonzero()[:, 1], rows[rows != 0], 9) for start, rows in zip(starts, dense)]
    for found, expected in zip(sparse_places(*sparse, chunk=8), places(*dense)):
        assert torch.equal(found.above, expected.above) and torch.equal(found.tied, expected.tied)


def test_ties_are_the_mean_over_their_orders():
    """Two candidates above one's own and two that tie: the ranks 3, 4 and 5 are equally likely."""
    found = Places(torch.tensor([2, 0, 0, 0, 0, 0]), torch.tensor([2, 0, 0, 0, 0, 5]))
    orders = [1 / (3 + order.index("own")) for order in itertools.permutations(["own", "a", "b"])]
    assert float(found.reciprocal_rank()[0]) == pytest.approx(sum(orders) / len(orders))
    assert [float(found.recall(k)[0]) for k in (1, 2, 3, 4, 5, 10)] == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])
    assert float(found.reciprocal_rank()[1]) == 1.0 == float(found.recall(1)[1])
    assert float(found.recall(1)[5]) == pytest.approx(1 / 6)


@pytest.mark.parametrize("rows", [torch.ones(COUNT, 8), torch.zeros(COUNT, 8)])
def test_features_that_say_nothing_are_at_chance(rows):
    for found in places(rows, rows):
        assert float(found.reciprocal_rank().mean()) == pytest.approx(HARMONIC / COUNT)
        assert float(found.recall(10).mean()) == pytest.approx(10 / COUNT)


def test_a_bag_of_words_finds_a_pair_of_the_same_words():
    context = context_of(pairs())
    metrics = Retrieval()(context)
    assert headline(metrics) == "mrr"
    ways = ("text_to_pair", "pair_to_text")
    assert set(metrics) == {"mrr"} | {
        f"{name}_{way}" for name in ("mrr", "recall_at_1", "recall_at_10") for way in ways
    }
    for metric in metrics.values():
        assert metric.value == pytest.approx(1) and metric.baselines == pytest.approx({"random_init": 1, "tfidf": 1})
        assert metric.split == "held out" and f"among {COUNT} held out samples" in metric.protocol
        assert metric.standard_error == pytest.approx(0)
        assert f"tfidf: 1-2 grams of tokens, fitted on both columns of {COUNT} train samples" in metric.protocol
    assert f"chance {HARMONIC / COUNT:.2g}" in metrics["mrr"].protocol
    assert not context.left_out


def test_shuffled_pairs_fall_to_chance():
    metrics = Retrieval()(context_of(pairs(shuffled=True)))
    for name, metric in metrics.items():
        chance = HARMONIC / COUNT if name.startswith("mrr") else int(name.split("_")[2]) / COUNT
        for value in (metric.value, metric.baselines["tfidf"]):
            assert abs(value - chance) < 4 * max(metric.standard_error, 1 / COUNT), name
    errors = [metrics[f"mrr{way}"].standard_error for way in ("", "_text_to_pair")]
    assert 0 < errors[0] < errors[1] * 1.1  # a mean of both directions


def test_the_columns_of_the_views_may_be_named():
    plain, named = (Retrieval()(context_of(pairs(), **more)) for more in ({}, {"columns": ["text", "pair"]}))
    assert plain == named
    reverse = Retrieval(columns=["pair", "text"])(context_of(pairs()))
    assert reverse["recall_at_1_pair_to_text"].value == pytest.approx(1)


def test_samples_without_one_of_both_are_left_out_and_counted():
    dataset = pairs()
    columns = dataset.held_out.columns
    columns["pair"][:20] = 0
    columns["text"][10:25] = torch.tensor([1, 0, 0, 0, 0, 0])  # special ids are no words
    metrics = Retrieval()(context_of(dataset))
    assert "among 275 held out samples" in metrics["mrr"].protocol
    assert "25 without one of both left out" in metrics["mrr"].protocol
    assert metrics["mrr"].value == pytest.approx(1)


def test_two_towers_are_compared_too():
    dataset = user_item_dataset()
    encoder = Towers(dataset.spec)
    views = PassThrough(dataset.spec, dataset.spec, 2, columns=["user", "item"])
    metrics = Retrieval(max_samples=50)(make_context(dataset, views, trained=encoder, random_init=Towers(dataset.spec)))
    one, two = (encoder.towers[name](dataset.columns[name]) for name in ("user", "item"))
    assert metrics["mrr_user_to_item"].split == "train" and "among 50 train" in metrics["mrr"].protocol
    whole = Retrieval(max_samples=None)(make_context(dataset, views, trained=encoder))
    expected = places(one.detach(), two.detach())[1].reciprocal_rank().mean()
    assert whole["mrr_item_to_user"].value == pytest.approx(float(expected))


def test_without_pairs_nothing_is_measured_and_the_reader_is_told():
    dataset = pairs()
    alone = Columns(Spec(text=dataset.spec["text"]), {"text": dataset.columns["text"]})
    context = context_of(alone)
    assert Retrieval()(context) == {}
    assert context.left_out == ["retrieval: these data have no pairs, which are two columns such as text and pair"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [(["text", "par"], "probe.columns: the dataset has no column 'par'. Did you mean 'pair'?"),
     (["text", "number"], "probe.columns: the run's encoder does not read the column 'number'.")],
)  # fmt: skip
def test_columns_that_cannot_be_read_are_named(columns, message):
    dataset = pairs(held_out=False)
    dataset.spec["number"] = Field("id", (), torch.int64, 3)
    with pytest.raises(UserError) as error:
        Retrieval(columns=columns)(context_of(dataset))
    assert str(error.value).startswith(message)


def test_the_cheap_form_reads_a_thousand():
    assert (Retrieval(max_samples=None).cheap().max_samples, Retrieval(max_samples=9).cheap().max_samples) == (1000, 9)
