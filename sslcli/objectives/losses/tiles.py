"""Sums over all pairs, tile by tile: the order of the tiles, the running sums, and the gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Tiles:
    """Two buffers of one tile each, and the order of the tiles of an (n, m) matrix."""

    def __init__(self, like: Tensor, n: int, m: int, tile: int) -> None:
        self.shape, self.tile = (n, m), tile
        self.buffers = like.new_empty(2, min(tile, n) * min(tile, m))

    def all(self) -> Iterator[tuple[slice, slice]]:
        for i in range(0, self.shape[0], self.tile):
            for j in range(0, self.shape[1], self.tile):
                yield slice(i, min(i + self.tile, self.shape[0])), slice(j, min(j + self.tile, self.shape[1]))

    def upper(self) -> Iterator[tuple[slice, slice]]:
        """Yield the tiles on and above the diagonal of a square matrix."""
        return ((rows, columns) for rows, columns in self.all() if rows.start <= columns.start)

    def product(self, a: Tensor, b: Tensor, rows: slice, columns: slice) -> Tensor:
        """Compute a[rows] @ b[columns].T in the first buffer."""
        x, y = a[rows], b[columns]
        return torch.mm(x, y.T, out=self.buffers[0, : len(x) * len(y)].view(len(x), len(y)))

    def spare(self, tile: Tensor) -> Tensor:
        """Return the second buffer in the shape of ``tile``."""
        return self.buffers[1, : tile.numel()].view_as(tile)


class LogSumExp2:
    """Running log2 of the sum of 2^x for each of n rows."""

    def __init__(self, like: Tensor, n: int) -> None:
        # Not -inf, as -inf - (-inf) is nan. The sum of an empty row stays 0, so its logarithm is -inf.
        self.top = like.new_full((n,), torch.finfo(like.dtype).min)
        self.sum = like.new_zeros(n)

    def add(self, tile: Tensor, where: slice, dim: int, *, out: Tensor) -> None:
        """Add the tile, summed over ``dim``, to the rows ``where``; ``out`` is a scratch buffer, perhaps the tile."""
        top = torch.maximum(self.top[where], tile.amax(dim))
        self.sum[where].mul_(torch.exp2(self.top[where] - top))
        self.sum[where].add_(torch.sub(tile, top.unsqueeze(dim), out=out).exp2_().sum(dim))
        self.top[where] = top

    def value(self) -> Tensor:
        return self.sum.log2() + self.top


class PairGradients:
    """Accumulate the gradients of a, b and scale from W = dL/d(scale a b^T): scale W b, scale W^T a, sum W (a b^T)."""

    def __init__(self, ctx: Any, a: Tensor, b: Tensor) -> None:
        needs_a, needs_b, self.needs_scale = ctx.needs_input_grad[:3]
        self.a, self.b = a, b
        self.at_a = torch.zeros_like(a) if needs_a or self.needs_scale else None
        self.at_b = torch.zeros_like(b) if needs_b else None

    def add(self, weights: Tensor, rows: slice, columns: slice) -> None:
        if self.at_a is not None:
            self.at_a[rows].addmm_(weights, self.b[columns])
        if self.at_b is not None:
            self.at_b[columns].addmm_(weights.T, self.a[rows])

    def value(self, scale: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        at_scale = (self.a * self.at_a).sum() if self.needs_scale and self.at_a is not None else None
        at_a = None if self.at_a is None else self.at_a.mul_(scale)
        return at_a, None if self.at_b is None else self.at_b.mul_(scale), at_scale


def fill_diagonals(tile: Tensor, rows: slice, columns: slice, offsets: tuple[int, ...], value: float) -> None:
    """Fill the entries of this tile that lie on the diagonals j = i + offset of the whole matrix."""
    for offset in offsets:
        k = offset + rows.start - columns.start
        if -tile.shape[0] < k < tile.shape[1]:
            tile.diagonal(k).fill_(value)


def hide_equal(
    tile: Tensor, rows: slice, columns: slice, keys: Tensor | None, kept: tuple[int, ...], value: float
) -> None:
    """Fill the entries of this tile whose row and column have an equal key, but none on the diagonals ``kept``.

    Args:
        tile: a tile of an (M, M) matrix.
        rows: where it is.
        columns: where it is.
        keys: (M,) int64, or (M, K), of which one equal key is enough; None fills nothing.
        kept: offsets of diagonals, as those of ``fill_diagonals``.
        value: what the entries become.
    """
    if keys is not None:
        first, *others = keys.unbind(1) if keys.dim() == 2 else (keys,)
        equal = first[rows, None] == first[columns]
        for key in others:
            equal |= key[rows, None] == key[columns]
        fill_diagonals(equal, rows, columns, kept, False)
        tile.masked_fill_(equal, value)


def negate_diagonal(tile: Tensor, rows: slice, columns: slice) -> None:
    if rows.start == columns.start:  # tiles are square, so the diagonal crosses only these
        tile.diagonal().neg_()


def refuse_second_derivative() -> None:
    """Raise under create_graph, where the weights would be treated as constants (once_differentiable permits that)."""
    if torch.is_grad_enabled():
        raise RuntimeError("Tiled losses have no second derivative; call backward without create_graph.")


def empty_sums_to_inf(lse2: Tensor) -> Tensor:
    """Replace -inf of rows with an empty sum by inf, so that their weights are 2^(-inf - inf) = 0 instead of nan."""
    return lse2.masked_fill(lse2 == -math.inf, math.inf)


def at_least_float32(*tensors: Tensor) -> Any:
    """Cast all tensors to the widest of their dtypes and float32; autograd casts their gradients back."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    cast = tuple(tensor.to(dtype) for tensor in tensors)
    return cast if len(cast) > 1 else cast[0]


def scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """Return a tensor () with the dtype and device of ``like``, without device synchronisation."""
    if isinstance(value, Tensor):
        return value.reshape(()).to(like.device, like.dtype, non_blocking=True)
    return like.new_full((), value)


def tile_size(like: Tensor) -> int:
    """Return a tile size: on a CPU two tiles fit the L2 cache; on accelerators fewer, larger kernels are faster."""
    return 512 if like.device.type == "cpu" else 4096
