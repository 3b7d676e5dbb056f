"""Find an encoder's tensors in a file that has them under a prefix which no row of the table of layouts knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sslcli.encoders.batchnorm import COUNTER
from sslcli.pretrained.key_maps import recognised
from sslcli.pretrained.layout import Layout, Weights

_MANY = (
    0.75  # a prefix is tried if it has this many keys, as a share of the encoder's: layouts may join or share tensors
)
LEAST = 0.95  # smallest share of the encoder's tensors, and of the file's, that must match


@dataclass(frozen=True)
class Found:
    """The tensors of a file by the encoder's names.

    Args:
        weights: the tensors.
        layouts: the rows of the table that were applied.
        prefix: the prefix that was removed before; empty if none was.
        others: further prefixes under which other values of the same tensors lie.
    """

    weights: Weights
    layouts: list[Layout]
    prefix: str = ""
    others: tuple[str, ...] = ()


def find(weights: Mapping[str, Tensor], encoder: Collection[str]) -> Found:
    """Return the encoder's tensors, looked for as the file has them, and then under each prefix of many keys.

    Args:
        weights: the tensors by the file's names.
        encoder: the names of the encoder's tensors.
    """
    ours = {name for name in encoder if not name.endswith(COUNTER)}
    plain, whole = Found(*recognised(weights, encoder)), Found(dict(weights), [])
    best = plain
    for start in (plain, whole):  # what the table has left of the names comes first
        if _share(best, ours) < LEAST:
            under = [_under(prefix, start, encoder) for prefix in _prefixes(start.weights, _MANY * len(ours))]
            best = max([best, *under], key=lambda found: _share(found, ours))
            equal = [f for f in under if _share(f, ours) == _share(best, ours) and not _is_same(f, best, ours)]
            best = replace(best, others=tuple(found.prefix for found in equal))
    return best


def _under(prefix: str, start: Found, encoder: Collection[str]) -> Found:
    inner = {key.removeprefix(prefix): tensor for key, tensor in start.weights.items() if key.startswith(prefix)}
    weights, layouts = recognised(inner, encoder)
    return Found(weights, start.layouts + layouts, prefix)


def _prefixes(keys: Collection[str], least: float) -> list[str]:
    """Return the prefixes, each up to a dot, that at least ``least`` keys have, in sorted order."""
    parts = (key.split(".") for key in keys)
    counts = Counter(".".join(words[:n]) + "." for words in parts for n in range(1, len(words)))
    return sorted(prefix for prefix, count in counts.items() if count >= least)


def _share(found: Found, ours: Collection[str]) -> float:
    return len(found.weights.keys() & set(ours)) / max(len(ours), 1)


def _is_same(one: Found, other: Found, ours: Collection[str]) -> bool:
    """Whether two places hold the same values, as where a module is known by two names."""
    both = [(one.weights.get(name), other.weights.get(name)) for name in ours]
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in both)
