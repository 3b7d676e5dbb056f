"""Which samples of a batch are one thing twice, such as a text that many people wrote: a number for each sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.types import Field


def numbers_of(column: Tensor, field: Field) -> Tensor:
    """Return (B,) int64, equal for samples whose values are equal: an id itself, of tokens a hash of those not padding.

    Different texts have equal numbers by chance only, about once in 2^64 pairs. Padding changes nothing.

    Args:
        column: (B,) ids or (B, T) tokens.
        field: its description.
    """
    ids = column.long()
    if field.kind == "id":
        return ids
    valid = torch.ones_like(ids) if field.pad is None else (ids != field.pad).long()
    # A sum over the words (id, place), each hashed: a place counts the tokens before it that are no padding.
    return (_mixed(ids ^ _mixed(valid.cumsum(1))) * valid).sum(1)


def num_equal(numbers: Tensor) -> Tensor:
    """Return (N,) how many of ``numbers`` (N,) are equal to each, itself among them."""
    number = numbered(numbers)
    return _summed(number, torch.ones_like(number))


def weight_of_negatives(numbers: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return (N,) the summed weight of the samples that differ from each in all of its numbers.

    Args:
        numbers: (N,), or (N, 2), by inclusion and exclusion.
        weight: (N,); None is 1 for each.
    """
    columns = numbers.unbind(1) if numbers.dim() == 2 else (numbers,)
    weight = torch.ones(len(numbers), device=numbers.device) if weight is None else weight
    found = weight.sum() - sum(_summed(numbered(column), weight) for column in columns)
    if len(columns) == 1:
        return found
    first, second = map(numbered, columns)
    return found + _summed(numbered(first * len(numbers) + second), weight)


def _summed(number: Tensor, weight: Tensor) -> Tensor:
    """Return (N,) the summed weight of the samples with the number of each."""
    return torch.zeros_like(weight).index_add(0, number, weight)[number]


def numbered(numbers: Tensor) -> Tensor:
    """Number the different values of (N,) from 0, by sorting: torch.unique waits for the device to return a count."""
    in_order, order = numbers.sort()
    number = torch.empty_like(numbers, dtype=torch.long)
    number[order] = F.pad(in_order.diff() != 0, (1, 0)).cumsum(0)
    return number


def _mixed(x: Tensor) -> Tensor:
    """Hash int64 by SplitMix64's finaliser (Steele, Lea and Flood 2014), as ``randomness.mix`` does on the host.

    Arithmetic of int64 wraps around, and a shift to the right copies the sign, which is cut off here.
    """
    x = x + (0x9E3779B97F4A7C15 - 2**64)
    x = (x ^ ((x >> 30) & (2**34 - 1))) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ ((x >> 27) & (2**37 - 1))) * (0x94D049BB133111EB - 2**64)
    return x ^ ((x >> 31) & (2**33 - 1))
