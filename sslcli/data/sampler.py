"""Computes the k-th sample of a shuffled epoch directly, without a shuffled list of all samples."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from sslcli.randomness import fold, mix

_ROUNDS = 16  # with 8 rounds, orders of five samples are visibly not uniform


def permuted(position: np.ndarray, size: int, *key: int | str) -> np.ndarray:
    """Map each ``position`` by a pseudo-random permutation of ``range(size)`` that depends on ``key``.

    The permutation is a generalised Feistel network on a x b >= size cells (Black and Rogaway 2002, "Ciphers with
    Arbitrary Finite Domains", method 3). In every round a pair (l, r) becomes (r, l + F(r) mod a or b), which is
    invertible for any F; here F is a keyed hash. Results that are not below ``size`` are mapped again until they are
    (cycle walking), so the map is a permutation of ``range(size)``. An epoch of a billion samples needs no list.

    Args:
        position: integers in [0, size), of any shape.
        size: the number of samples.
        key: numbers and texts that determine the permutation.
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
    return left + np.uint64(a) * right  # after an even number of rounds, left is below a again
