"""A shuffled order without a shuffled list: the k-th sample of an epoch is computed, not looked up."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from sslcli.randomness import fold, mix

_ROUNDS = 16  # 8 leave orders of five samples visibly uneven


def permuted(position: np.ndarray, size: int, *key: int | str) -> np.ndarray:
    """Where a pseudo-random permutation of ``range(size)``, chosen by ``key``, sends each ``position``.

    A generalised Feistel network on a x b >= size cells (Black and Rogaway 2002, "Ciphers with Arbitrary
    Finite Domains", method 3): a pair (l, r) becomes (r, l + F(r) mod a or b) in every round, which is
    invertible whatever F is; F is a keyed hash. The few cells at or above ``size`` walk on until they land
    below it, which keeps it a permutation. So an epoch of a billion samples needs no list of a billion.

    Args:
        position: integers in [0, size), any shape.
        size: how many there are.
        key: what the permutation is a function of.
    """
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    keys = _round_keys(key)
    found = _network(position.astype(np.uint64), a, b, keys)
    while (outside := found >= size).any():
        found[outside] = _network(found[outside], a, b, keys)
    return found.astype(np.int64)


@lru_cache(maxsize=4)
def _round_keys(key: tuple[int | str, ...]) -> tuple[np.uint64, ...]:
    return tuple(np.uint64(fold(*key, round_)) for round_ in range(_ROUNDS))


def _network(cell: np.ndarray, a: int, b: int, keys: tuple[np.uint64, ...]) -> np.ndarray:
    left: np.ndarray = cell % np.uint64(a)
    right: np.ndarray = cell // np.uint64(a)
    for round_, key in enumerate(keys):
        modulus = np.uint64(b if round_ % 2 else a)
        left, right = right, (left + mix(right ^ key) % modulus) % modulus
    return left + np.uint64(a) * right  # an even number of rounds: left counts to a again
