"""The graph of training interactions, and lists of several rows, against loops."""

import pytest
import torch
from support.modalities import histories, pairs_dataset

from sslcli.data.interactions.samples import padded
from sslcli.features import Features
from sslcli.graph import Graph, Lists
from sslcli.randomness import Randomness
from sslcli.types import Encoded, Field, Spec, View

PAIRS = [(0, 2), (2, 0), (0, 1), (2, 0), (0, 2), (3, 3)]  # of users and items, some twice


def graph():
    users, items = torch.tensor(PAIRS).T
    fields = {name: Field("id", (), torch.int64, vocab=9) for name in ("user", "item")}
    return Graph.of(Spec(fields, facts=Graph.facts(4, 5, users, items)))


@pytest.mark.parametrize("rows", [[[3, 1, 2], [], [5]], [[], []], [[7, 8, 9, 4]]])
def test_lists_of_rows_keep_their_order_and_histories_are_their_last_numbers(rows):
    lists = Lists.of_rows(rows)
    assert [lists.row(i).tolist() for i in range(len(lists))] == rows
    field = Field("tokens", (3,), torch.int32, vocab=200, pad=150)
    index = torch.arange(len(rows)).flip(0)
    found = padded(lists, index, field, 100)
    assert found.dtype == torch.int32
    assert found.tolist() == [([100 + i for i in rows[k][-3:]] + 3 * [150])[:3] for k in index.tolist()]


def test_a_graph_is_its_facts():
    found = graph()
    assert (found.num_users, found.num_items, found.num_nodes) == (4, 5, 9)
    assert found.edges.T.tolist() == sorted([user, item + 4] for user, item in set(PAIRS))
    assert found.popularity.tolist() == [1, 1, 1, 1, 0]
    with pytest.raises(ValueError, match="has no users and items"):
        Graph.of(Spec())


def test_lists_are_those_of_a_loop():
    lists = graph().items_of_users()
    expected = [sorted({item for user, item in PAIRS if user == row}) for row in range(4)]
    assert [lists.row(i).tolist() for i in range(4)] == expected == [[1, 2], [], [0], [3]]
    assert lists.lengths.tolist() == [2, 0, 1, 1] and len(lists) == 4
    rows = torch.tensor([3, 1, 0])
    place, values = lists.pairs(rows)
    assert list(zip(place.tolist(), values.tolist())) == [(0, 3), (2, 1), (2, 2)]
    dense = lists.dense(rows, 5)
    assert dense.nonzero().tolist() == [[0, 3], [2, 1], [2, 2]] and dense.shape == (3, 5)


def test_unsorted_values_of_unsorted_rows_are_sorted():
    lists = Lists.of(torch.tensor([1, 0, 1]), torch.tensor([5, 9, 2]), 3)
    assert [lists.row(i).tolist() for i in range(3)] == [[9], [2, 5], []]


def test_views_of_one_table_are_one_batch_for_each_noise():
    asked = []

    def encode(view, mask=None):
        asked.append((view.field, view.noise, view.x.tolist()))
        return Encoded(view.x[:, None, None], view.x[:, None] * (1 if view.noise is None else view.noise))

    x = torch.arange(2)
    views = [View(x, "user"), View(x + 2, "item"), View(x + 4, "user", noise=7), View(x + 6, "item", noise=7)]
    features = Features(encode, views, Randomness(0, 0, x.numpy(), torch.device("cpu")), at_once=True)
    assert [encoded.pooled.flatten().tolist() for encoded in features.clean(3, 0)] == [[42, 49], [0, 1]]
    assert features.clean(1)[0].pooled.flatten().tolist() == [2, 3]
    assert asked == [("user", None, [0, 1, 2, 3]), ("user", 7, [4, 5, 6, 7])]


def test_no_held_out_pair_of_the_tiny_dataset_is_one_of_its_graph():
    dataset = pairs_dataset()
    held_out = dataset.held_out
    pairs = {tuple(pair) for pair in torch.stack([*dataset.columns.values()]).T.tolist()}
    assert pairs == {tuple(edge) for edge in Graph.of(dataset.spec).edges.T.tolist()} and len(pairs) == len(dataset)
    asked = [(u, int(i) + 12) for u in range(12) for i in held_out.rankings.relevant.row(u)]
    assert asked == list(zip(*(column.tolist() for column in held_out.columns.values()))) and len(asked) == 12
    assert not pairs & set(asked)
    assert all(len(held_out.rankings.seen.row(u)) for u in range(12))
    assert Graph.of(dataset.spec).popularity.min() == 0


def test_the_tiny_histories_are_the_last_items_before_the_one_held_out():
    dataset = histories()
    graph, field = Graph.of(dataset.spec), dataset.spec["history"]
    rankings = dataset.held_out.rankings
    assert (field.vocab, field.pad, field.mask) == (graph.num_nodes + 2, graph.num_nodes, graph.num_nodes + 1)
    lengths = set()
    for user, row in enumerate(dataset.columns["history"].tolist()):
        items = [node - graph.num_users for node in row if node != field.pad]
        assert row[: len(items)] == [item + graph.num_users for item in items]
        step = 1 + user % 2
        assert all((after - before) % 30 == step for before, after in zip(items, items[1:]))
        assert set(items) <= set(rankings.seen.row(user).tolist()) == set(graph.items_of_users().row(user).tolist())
        (following,) = rankings.relevant.row(user).tolist()
        assert following == ((items[-1] + step) % 30 if items else 5 * user % 30)
        lengths.add(len(items))
    assert lengths == set(range(13))
