"""Vectors of nodes and LightGCN's propagation, against a dense matrix, a graph by hand, and the published noise."""

import copy
import math

import pytest
import torch
from support.helpers import TINY, make_trainer
from support.modalities import pairs_dataset

from sslcli.components import Components
from sslcli.encoders.base import Recommends
from sslcli.encoders.nodes import Nodes
from sslcli.graph import Graph
from sslcli.objectives.bpr import BPR
from sslcli.types import Field, Spec, View
from sslcli.views.nodes.pairs import UserItem

DATASET = pairs_dataset()
SPEC = DATASET.spec


def encoder(spec=SPEC, **options):
    torch.manual_seed(0)
    return Nodes(spec, **{"dim": 5, **options}).double()


def dense(spec, kept=None):
    """The normalised adjacency of a graph, entry by entry."""
    graph = Graph.of(spec)
    pairs = [tuple(pair) for pair in graph.edges.T.tolist()] if kept is None else kept
    degree = [sum(node in pair for pair in pairs) for node in range(graph.num_nodes)]
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    for u, i in pairs:
        matrix[u, i] = matrix[i, u] = 1 / math.sqrt(degree[u] * degree[i])
    return matrix


@pytest.mark.parametrize("layers", [0, 2, 3])
def test_layers_and_gradients_are_those_of_a_dense_matrix(layers):
    found = encoder(layers=layers)
    x = torch.tensor([0, 20, 13, 4, 13])
    encoded = found(View(x, "user"))
    table = found.embed.weight.detach().clone().requires_grad_()
    each = [table]
    for _ in range(layers):
        each.append(dense(SPEC) @ each[-1])
    tokens = torch.stack([rows[x] for rows in each], 1)
    torch.testing.assert_close(encoded.tokens, tokens, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(encoded.pooled, tokens.mean(1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.item_vectors(), torch.stack(each).mean(0)[12:], rtol=1e-6, atol=1e-7)
    weight = torch.randn(5, layers + 2, 5, generator=torch.Generator().manual_seed(1)).double()
    (encoded.tokens * weight[:, 1:]).sum().add((encoded.pooled * weight[:, 0]).sum()).backward()
    (tokens * weight[:, 1:]).sum().add((tokens.mean(1) * weight[:, 0]).sum()).backward()
    torch.testing.assert_close(found.embed.weight.grad, table.grad, rtol=1e-6, atol=1e-7)


def test_a_graph_by_hand():
    """User 0 has items 2 and 3, user 1 has item 3 only; item 4 has no user."""
    spec = Spec(facts=Graph.facts(2, 3, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])))
    found = encoder(spec, dim=1, layers=1)
    with torch.no_grad():
        found.embed.weight[:, 0] = torch.tensor([1.0, 10.0, 100.0, 1000.0, 7.0])
    after = [100 / 2**0.5 + 1000 / 2, 1000 / 2**0.5, 1 / 2**0.5, 1 / 2 + 10 / 2**0.5, 0]
    expected = [(before + row) / 2 for before, row in zip([1, 10, 100, 1000, 7], after)]
    assert found(View(torch.arange(5), "user")).pooled.flatten().tolist() == pytest.approx(expected)


def test_without_layer_0_the_table_is_not_in_the_mean():
    found = encoder(layers=2, layer_0=False)
    encoded = found(View(torch.arange(21), "item"))
    torch.testing.assert_close(encoded.pooled, encoded.tokens[:, 1:].mean(1))
    torch.testing.assert_close(found.item_vectors(), encoded.pooled[12:])


def test_noise_is_a_vector_of_its_length_in_the_orthant_of_each_row_and_goes_on_to_the_next_layer():
    found = encoder(layers=2, noise=0.3)
    x = torch.arange(21)
    noisy = found(View(x, "user", noise=5)).tokens.detach()
    matrix = dense(SPEC)
    for layer in (1, 2):
        clean = matrix @ noisy[:, layer - 1]
        added = noisy[:, layer] - clean
        connected = clean.abs().sum(1) > 0
        torch.testing.assert_close(added.norm(dim=1)[connected], torch.full((int(connected.sum()),), 0.3).double())
        assert (added[connected] * clean[connected] >= 0).all()
        assert len(added[connected].abs().flatten().unique()) == added[connected].numel()  # drawn for each node
    assert torch.equal(noisy[:, 0], found.embed.weight)
    assert not torch.equal(*(noisy[:, layer] - matrix @ noisy[:, layer - 1] for layer in (1, 2)))


def test_what_is_drawn_depends_on_the_seed_alone():
    found = encoder(layers=1, noise=0.3, drop_edges=0.3)
    whole = found(View(torch.arange(21), "user", noise=5)).pooled
    torch.manual_seed(7)
    assert torch.equal(found(View(torch.tensor([20, 3]), "item", noise=5)).pooled, whole[[20, 3]])
    assert torch.equal(copy.deepcopy(found).eval()(View(torch.arange(21), "user", noise=5)).pooled, whole)
    assert not torch.equal(found(View(torch.arange(21), "user", noise=6)).pooled, whole)
    clean = found(View(torch.arange(21), "user")).pooled
    torch.testing.assert_close(clean, encoder(layers=1)(View(torch.arange(21), "user")).pooled)


def test_dropped_edges_leave_a_smaller_graph_with_degrees_of_its_own():
    found = encoder(dim=21, layers=1, drop_edges=0.4)
    with torch.no_grad():
        found.embed.weight.copy_(torch.eye(21))
    left = set()
    for seed in range(40):
        matrix = found(View(torch.arange(21), "user", noise=seed)).tokens[:, 1].detach()
        kept = [(u, i) for u, i in Graph.of(SPEC).edges.T.tolist() if matrix[u, i] > 0]
        torch.testing.assert_close(matrix, dense(SPEC, kept), rtol=1e-6, atol=1e-7)
        left.add(len(kept))
    assert 15 < sum(left) / len(left) < 31 and len(left) > 5  # of 38, 0.6 are 23


def test_a_checkpoint_has_the_table_only_and_the_graph_is_made_again():
    found = encoder(layers=2, noise=0.1, drop_edges=0.1)
    assert list(found.state_dict()) == ["embed.weight"]
    assert isinstance(found, Recommends)


def test_the_start_lines_say_how_often_a_step_propagates(tmp_path, monkeypatch):
    found, passes = encoder(layers=2), []
    monkeypatch.setattr(
        found, "after_layers", lambda seed: passes.append(seed) or type(found).after_layers(found, seed)
    )
    parts = Components(DATASET, found.float(), BPR(found), UserItem(SPEC, SPEC, 3))
    for pieces, words in ((1, "once a step"), (4, "8 times a step, twice a micro-batch")):
        options = ("train.batch_size=16", f"train.accumulate={pieces}", "train.precision=fp32")
        trainer = make_trainer(tmp_path, *TINY, *options, parts=parts)
        passes.clear()
        trainer.gradients(next(trainer.loader.batches(0)))
        assert len(passes) == (1 if pieces == 1 else 2 * pieces)
        assert found.in_words(pieces) == f"2 layers over 38 edges, {words} for each seed of noise"
    assert encoder().in_words(4) == ""


def test_what_cannot_be():
    with pytest.raises(ValueError, match="has no users and items"):
        Nodes(Spec(user=Field("id", (), torch.int64, 3)))
    for wrong in ({"noise": 0.1}, {"drop_edges": 0.1}, {"layer_0": False}):
        with pytest.raises(ValueError, match="layers=0"):
            Nodes(SPEC, **wrong)
    with pytest.raises(ValueError, match="could be hidden"):
        Nodes(SPEC)(View(torch.arange(3), "user"), torch.ones(3, 1, dtype=torch.bool))
