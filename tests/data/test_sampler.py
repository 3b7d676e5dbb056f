"""The order of an epoch: a permutation that nobody stores."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from sslcli.data.sampler import permuted


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 53, 256, 1000, 65_536, 65_537])
def test_every_sample_has_one_place(size):
    order = permuted(np.arange(size), size, 0, "order", 3)
    assert np.array_equal(np.sort(order), np.arange(size))


def test_a_place_is_computed_alone_as_it_is_among_others():
    whole = permuted(np.arange(1000), 1000, 5)
    assert [int(permuted(np.array([k]), 1000, 5)[0]) for k in range(0, 1000, 37)] == whole[::37].tolist()


def test_a_place_in_a_billion_needs_no_list_of_a_billion():
    found = permuted(np.array([0, 1, 999_999_999]), 10**9, 0)
    assert len(set(found.tolist())) == 3 and found.min() >= 0 and found.max() < 10**9


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.slow
def test_all_orders_of_a_few_samples_are_equally_likely(size):
    count = Counter(tuple(permuted(np.arange(size), size, key).tolist()) for key in range(3000))
    observed = [count[order] for order in permutations(range(size))]
    assert stats.chisquare(observed).pvalue > 1e-4


def test_neighbours_are_scattered_and_keys_give_unrelated_orders():
    size = 10_000
    first, second = (permuted(np.arange(size), size, 0, "order", epoch) for epoch in (0, 1))
    places = np.arange(size)
    for a, b in ((first, places), (first, second), (first[1:], first[:-1])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / size**0.5
    # The places that a block of neighbours is sent to fill the range as uniform draws would.
    assert stats.kstest(first[:500] / size, "uniform").pvalue > 1e-4
    assert (first == second).sum() < 10  # one fixed point is expected
