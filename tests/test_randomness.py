"""Counter-based random numbers: their distribution, their independence, and a slow SplitMix64 beside them."""

import itertools
import zlib

import numpy as np
import pytest
import torch
from scipy import stats
from support.helpers import randomness

from sslcli.randomness import Randomness, fold, mix, seed_torch

CPU = torch.device("cpu")


def splitmix64(state):
    """The next output of SplitMix64 at ``state``, as published, in whole numbers of any size."""
    state = (state + 0x9E3779B97F4A7C15) % 2**64
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
    return state ^ (state >> 31)


def slow_fold(*words):
    state = 0
    for word in words:
        value = zlib.crc32(word.encode()) if isinstance(word, str) else word % 2**64
        state = splitmix64(state ^ splitmix64(value))
    return state


def correlation(a, b):
    return abs(float(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1]))


def test_splitmix64_gives_its_published_first_numbers():
    """Seed 1234567, as listed at rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64."""
    golden, published = 0x9E3779B97F4A7C15, [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = [(1234567 + i * golden) % 2**64 for i in range(3)]
    assert [splitmix64(state) for state in states] == published
    assert mix(np.array(states, np.uint64)).tolist() == published


def test_mix_is_splitmix64_on_every_kind_of_word():
    words = [0, 1, 2**31, 2**63, 2**64 - 1, *range(1000, 1100)]
    assert mix(np.array(words, np.uint64)).tolist() == [splitmix64(word) for word in words]


@pytest.mark.parametrize("words", [(), (0,), (1, 2, 3), (-1,), (2**64 - 1, "order", 0), ("a", "b")])
def test_fold_is_the_slow_hash(words):
    assert fold(*words) == slow_fold(*words)


def test_fold_never_changes():
    """Constants, so that a checkpoint of today draws the same numbers in later versions."""
    assert fold(0) == 0xA706DD2F4D197E6F
    assert fold(0, "order", 0) == 0xF3FE45EB3278D164
    assert fold(1, 2, 3) == 0x882D1ACC8D6C3B48


def test_fold_tells_words_their_order_and_their_number_apart():
    words = [0, 1, 2, 2**32, -1, "a", "b", "view0", "view1"]
    tuples = [t for n in (1, 2, 3) for t in itertools.product(words, repeat=n)]
    assert len({fold(*t) for t in tuples}) == len(tuples)


def test_uniform_follows_the_documented_hash():
    """Every number from the definition, in plain Python."""
    u = Randomness(5, 9, np.array([3, 1000]), CPU).uniform("crop", 2, 2)
    stream = slow_fold(5, 9, "crop")
    for row, position in enumerate([3, 1000]):
        base = splitmix64(position ^ stream)
        expected = [(splitmix64(base ^ splitmix64(i)) >> 40) / 2**24 for i in range(4)]
        assert u[row].flatten().tolist() == expected


def test_uniform_is_uniform_in_the_half_open_unit_interval():
    u = randomness(4000).uniform("any", 25)
    assert u.shape == (4000, 25) and u.dtype == torch.float32
    assert u.min() >= 0 and u.max() < 1
    n = u.numel()
    assert abs(u.mean().item() - 0.5) < 4 * (1 / 12 / n) ** 0.5
    assert abs(u.var().item() - 1 / 12) < 4 * (1 / 180 / n) ** 0.5
    counts = np.histogram(u.numpy(), bins=256, range=(0, 1))[0]
    assert stats.chisquare(counts).pvalue > 1e-4
    assert stats.kstest(u.flatten().double().numpy(), "uniform").pvalue > 1e-4


def test_every_column_and_every_row_is_uniform():
    u = randomness(2000).uniform("any", 32).double().numpy()
    assert min(stats.kstest(column, "uniform").pvalue for column in u.T) > 1e-5
    assert stats.kstest(u.mean(1) * (12 * 32) ** 0.5 - 0.5 * (12 * 32) ** 0.5, "norm").pvalue > 1e-4


def test_neighbouring_columns_rows_and_pairs_are_independent():
    u = randomness(4000).uniform("any", 8)
    matrix = np.corrcoef(u.numpy().T)
    assert np.abs(matrix - np.eye(8)).max() < 4.5 / 4000**0.5
    assert correlation(u[1:], u[:-1]) < 4.5 / (3999 * 8) ** 0.5
    pairs = np.histogram2d(u[:, 0].numpy(), u[:, 1].numpy(), bins=8, range=[(0, 1), (0, 1)])[0]
    assert stats.chisquare(pairs.flatten()).pvalue > 1e-4


@pytest.mark.parametrize("other", [("b", 0, 0), ("a", 1, 0), ("a", 0, 1), ("a", 2**31, 0), ("a", 0, 2**31)], ids=str)
def test_names_steps_and_seeds_give_independent_streams(other):
    name, step, seed = other
    u, v = randomness(20_000).uniform("a"), randomness(20_000, step, seed).uniform(name)
    assert (u != v).float().mean() > 0.999
    assert correlation(u, v) < 4.5 / 20_000**0.5


def test_a_seed_and_a_step_are_not_interchangeable():
    one, other = randomness(8, step=1, seed=2), randomness(8, step=2, seed=1)
    assert not torch.equal(one.uniform("a"), other.uniform("a"))


def test_a_row_depends_on_its_position_only():
    whole = randomness(64, step=3, seed=7).uniform("a", 5)
    for positions in ([0], [63, 0, 17], list(range(16, 32)), [5, 5]):
        part = Randomness(7, 3, np.array(positions), CPU).uniform("a", 5)
        assert torch.equal(part, whole[positions])


def test_part_is_a_slice_and_nests():
    r = randomness(64, step=3, seed=7)
    whole = r.uniform("a", 5)
    assert torch.equal(r.part(10, 30).uniform("a", 5), whole[10:30])
    assert torch.equal(r.part(10, 30).part(5, 9).uniform("a", 5), whole[15:19])
    assert r.part(4, 4).uniform("a", 5).shape == (0, 5)


def test_drawing_is_repeatable_and_leaves_the_global_generators_alone():
    r, torch_state, numpy_state = randomness(8), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert torch.equal(r.uniform("a", 3), r.uniform("a", 3))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_shape_is_only_a_reshape():
    r = randomness(8)
    assert torch.equal(r.uniform("a", 2, 3).flatten(1), r.uniform("a", 6))
    assert r.uniform("a").shape == (8,)


def test_torch_is_seeded_as_by_its_own_function():
    seed_torch(2**63 + 5, CPU)
    drawn = torch.rand(8)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(8))
