"""Recommenders without an encoder against their formulae in loops and dense matrices."""

import numpy as np
import pytest
import torch

from sslcli.evaluation.recommenders import chosen_penalty, co_occurrences, ease, item_knn, popularity
from sslcli.graph import Graph, Lists
from sslcli.types import Spec

USERS, ITEMS = 301, 13  # so many that no two similarities of an item are equal


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    """(users, items) of 0 and 1; the last item is of nobody, and user 0 has all others."""
    found = (np.random.default_rng(0).random((USERS, ITEMS)) < np.linspace(0.1, 0.8, ITEMS)).astype(float)
    found[:, -1], found[0, :-1] = 0, 1
    return found


@pytest.fixture(scope="module")
def graph(matrix) -> Graph:
    users, items = map(torch.from_numpy, matrix.nonzero())
    return Graph.of(Spec(facts=Graph.facts(USERS, ITEMS, users, items)))


@pytest.fixture(scope="module")
def known() -> tuple[Lists, np.ndarray]:
    """The items of five users of whom nothing was fitted, the third without any, and the same as a matrix."""
    have = (np.random.default_rng(1).random((5, ITEMS)) < 0.4).astype(float)
    have[2] = 0
    rows, items = map(torch.from_numpy, have.nonzero())
    return Lists.of(rows, items, 5), have


def test_co_occurrences_in_parts_are_a_product_of_matrices(matrix, graph, monkeypatch):
    monkeypatch.setattr("sslcli.evaluation.recommenders._ELEMENTS", 4 * USERS)
    parts = list(co_occurrences(graph))
    assert len(parts) > 2 and torch.cat([items for items, _ in parts]).tolist() == list(range(ITEMS))
    assert np.array_equal(torch.cat([counts for _, counts in parts]), matrix.T @ matrix)


def test_popularity_counts_users(matrix, graph, known):
    assert popularity(graph)(known[0], torch.tensor([3, 2])).tolist() == [matrix.sum(0).tolist()] * 2


@pytest.mark.parametrize(("neighbours", "shrink"), [(3, 0.0), (4, 2.5), (100, 0.0)])
def test_item_knn_is_a_loop_over_the_nearest_items(matrix, graph, known, neighbours, shrink):
    lists, have = known
    found = item_knn(graph, neighbours=neighbours, shrink=shrink)(lists, torch.arange(5))
    for j in range(ITEMS):
        cosine = [
            0.0 if i == j or not matrix[:, i].any() or not matrix[:, j].any()
            else matrix[:, i] @ matrix[:, j] / (np.sqrt(matrix[:, i].sum() * matrix[:, j].sum()) + shrink)
            for i in range(ITEMS)
        ]  # fmt: skip
        nearest = sorted(range(ITEMS), key=lambda i: -cosine[i])[:neighbours]
        expected = [sum(cosine[i] for i in nearest if row[i]) for row in have]
        assert found[:, j].tolist() == pytest.approx(expected, abs=1e-6)


def test_ease_solves_its_ridge_regressions(matrix, graph, known):
    """Column j is the ridge regression of item j on all others, which is the problem that the closed form solves."""
    lists, have = known
    found = ease(graph, penalty=7.0)(lists, torch.tensor([4, 0, 2]))
    for j in range(ITEMS):
        others = [i for i in range(ITEMS) if i != j]
        x = matrix[:, others]
        weights = np.linalg.solve(x.T @ x + 7.0 * np.eye(ITEMS - 1), x.T @ matrix[:, j])
        assert found[:, j].tolist() == pytest.approx((have[[4, 0, 2]][:, others] @ weights).tolist(), abs=1e-5)


def test_lambda_is_chosen_for_pairs_that_it_was_not_fitted_on():
    """Of runs of items in a ring, a small lambda learns the neighbours; of noise in popularity, it learns noise."""
    draw = np.random.default_rng(3)
    ring = np.zeros((800, 40))
    ring[np.arange(800)[:, None], (draw.integers(40, size=(800, 1)) + np.arange(8)) % 40] = 1
    noise = draw.random((60, 40)) < np.linspace(0.05, 0.7, 40)

    def chosen(matrix: np.ndarray) -> float:
        users, items = map(torch.from_numpy, matrix.nonzero())
        return chosen_penalty(Graph.of(Spec(facts=Graph.facts(len(matrix), 40, users, items))), [1e5, 0.1])

    assert chosen(ring) == 0.1 and chosen(noise) == 1e5
