"""Contrastive sums over all pairs in O(N D) memory: the logits exist one tile at a time, forwards and backwards.

Forwards keep one log-sum-exp per row, by the running maximum and sum of online softmax (Milakov and Gimelshein 2018,
algorithm 3); backwards compute each tile again. One tile serves its rows and its columns, so both directions of a
cross-view loss cost one product, and of a symmetric matrix only the upper triangle is visited.

Tiles hold logits in units of log 2, because exp2 is cheaper than exp. Everything runs in float32 or better: logits at
temperature 0.07 reach 14, where bfloat16 is off by 0.06. Autograd runs ``forward`` with autocast as it is and
``backward`` with whatever is on at that time, hence the context in each. Nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

LOG2E = math.log2(math.e)


def self_logsumexp(
    z: Tensor, scale: float | Tensor, *, exclude_partner: bool = False, tile: int | None = None
) -> Tensor:
    """Log sum over j != i of exp(scale z_i . z_j) for every row i; -inf for a row with nothing to sum.

    Args:
        z: (M, D) rows, taken as they are.
        scale: one over the temperature; a tensor () may require a gradient.
        exclude_partner: leave out j = (i + M/2) mod M as well, the other view of sample i.
        tile: rows and columns of a tile.

    Returns:
        (M,) natural logarithms.
    """
    z = _at_least_float32(z)
    excluded = (0, len(z) // 2, -(len(z) // 2)) if exclude_partner else (0,)
    return _SelfLogSumExp.apply(z, _scalar(scale, z), excluded, tile or _tile(z))


def cross_logsumexp(a: Tensor, b: Tensor, scale: float | Tensor, *, tile: int | None = None) -> tuple[Tensor, Tensor]:
    """Log sum of exp(scale a_i . b_j) over j for every i and over i for every j, in one pass.

    Args:
        a: (N, D) rows, taken as they are.
        b: (M, D) columns.
        scale: one over the temperature; a tensor () may require a gradient.
        tile: rows and columns of a tile.

    Returns:
        (N,) and (M,) natural logarithms.
    """
    a, b = _at_least_float32(a, b)
    return _CrossLogSumExp.apply(a, b, _scalar(scale, a), True, tile or _tile(a))


def rows_logsumexp(a: Tensor, b: Tensor, scale: float | Tensor, *, tile: int | None = None) -> Tensor:
    """The first half of ``cross_logsumexp``, (N,), without the cost of the other."""
    a, b = _at_least_float32(a, b)
    return _CrossLogSumExp.apply(a, b, _scalar(scale, a), False, tile or _tile(a))[0]


def pair_softplus_sum(
    a: Tensor, b: Tensor, scale: float | Tensor, bias: float | Tensor, *, tile: int | None = None
) -> Tensor:
    """Sum over all i, j of softplus(-y_ij (scale a_i . b_j + bias)), y = 1 where i = j and -1 elsewhere; ().

    Args:
        a: (N, D) rows, taken as they are.
        b: (M, D) columns.
        scale: multiplies the products; a tensor () may require a gradient.
        bias: added to them; a tensor () may require a gradient.
        tile: rows and columns of a tile.
    """
    a, b = _at_least_float32(a, b)
    return _PairSoftplus.apply(a, b, _scalar(scale, a), _scalar(bias, a), tile or _tile(a))


class _SelfLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, scale: Tensor, excluded: tuple[int, ...], tile: int) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            scaled = z * (scale * LOG2E)
            tiles = _Tiles(z, len(z), len(z), tile)
            total = _LogSumExp2(z, len(z))
            for rows, columns in tiles.upper():
                logits = tiles.product(scaled, z, rows, columns)
                _fill_diagonals(logits, rows, columns, excluded, -math.inf)
                total.add(logits, rows, 1, out=tiles.spare(logits))
                if rows != columns:
                    total.add(logits, columns, 0, out=logits)
            lse2 = total.value()
            ctx.save_for_backward(z, scale, lse2)
            ctx.excluded, ctx.tile = excluded, tile
            return lse2 / LOG2E

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        z, scale, lse2 = ctx.saved_tensors
        with torch.autocast(z.device.type, enabled=False):
            scaled = z * (scale * LOG2E)
            lse2 = _nothing_summed(lse2)
            tiles = _Tiles(z, len(z), len(z), ctx.tile)
            # s_ij is in the sums of i and of j: W_ij = g_i p_ij + g_j p_ji, and dL/dz = scale W z.
            mixed = torch.zeros_like(z)
            for rows, columns in tiles.upper():
                logits = tiles.product(scaled, z, rows, columns)
                _fill_diagonals(logits, rows, columns, ctx.excluded, -math.inf)
                weights = torch.sub(logits, lse2[rows, None], out=tiles.spare(logits)).exp2_().mul_(grad[rows, None])
                weights.add_(logits.sub_(lse2[columns]).exp2_().mul_(grad[columns]))
                mixed[rows].addmm_(weights, z[columns])
                if rows != columns:
                    mixed[columns].addmm_(weights.T, z[rows])
            # Each unordered pair stands twice in sum_ij W_ij z_i . z_j.
            grad_scale = (z * mixed).sum() / 2 if ctx.needs_input_grad[1] else None
            return mixed.mul_(scale), grad_scale, None, None


class _CrossLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, scale: Tensor, both: bool, tile: int) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(a.device.type, enabled=False):
            scaled = a * (scale * LOG2E)
            tiles = _Tiles(a, len(a), len(b), tile)
            over_j, over_i = _LogSumExp2(a, len(a)), _LogSumExp2(a, len(b))
            for rows, columns in tiles.all():
                logits = tiles.product(scaled, b, rows, columns)
                if both:
                    over_i.add(logits, columns, 0, out=tiles.spare(logits))
                over_j.add(logits, rows, 1, out=logits)
            row2, column2 = over_j.value(), over_i.value()
            ctx.save_for_backward(a, b, scale, row2, column2)
            ctx.tile = tile
            ctx.set_materialize_grads(False)
            return row2 / LOG2E, column2 / LOG2E if both else None

    @staticmethod
    def backward(ctx: Any, grad_row: Tensor | None, grad_column: Tensor | None) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        a, b, scale, row2, column2 = ctx.saved_tensors
        grads = _PairGradients(ctx, a, b)
        with torch.autocast(a.device.type, enabled=False):
            scaled = a * (scale * LOG2E)
            tiles = _Tiles(a, len(a), len(b), ctx.tile)
            for rows, columns in tiles.all():
                logits = tiles.product(scaled, b, rows, columns)
                weights = tiles.spare(logits)
                if grad_row is None:
                    weights.zero_()
                else:
                    torch.sub(logits, row2[rows, None], out=weights).exp2_().mul_(grad_row[rows, None])
                if grad_column is not None:
                    weights.add_(logits.sub_(column2[columns]).exp2_().mul_(grad_column[columns]))
                grads.add(weights, rows, columns)
            return *grads.value(scale), None, None


class _PairSoftplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, tile: int) -> Tensor:
        with torch.autocast(a.device.type, enabled=False):
            ctx.save_for_backward(a, b, scale, bias)
            ctx.tile = tile
            scaled = a * scale
            tiles = _Tiles(a, len(a), len(b), tile)
            total = a.new_zeros(())
            for rows, columns in tiles.all():
                logits = tiles.product(scaled, b, rows, columns).add_(bias)
                _negate_diagonal(logits, rows, columns)
                total += F.softplus(logits, threshold=40).sum()  # above 40, softplus(x) is x even in float64
            return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        a, b, scale, bias = ctx.saved_tensors
        grads = _PairGradients(ctx, a, b)
        with torch.autocast(a.device.type, enabled=False):
            scaled = a * scale
            tiles = _Tiles(a, len(a), len(b), ctx.tile)
            grad_bias = a.new_zeros(())
            for rows, columns in tiles.all():
                weights = tiles.product(scaled, b, rows, columns).add_(bias)
                _negate_diagonal(weights, rows, columns)
                weights.sigmoid_().mul_(grad)
                _negate_diagonal(weights, rows, columns)
                grads.add(weights, rows, columns)
                grad_bias += weights.sum()
            return *grads.value(scale), grad_bias, None


class _Tiles:
    """Two buffers of one tile each, and the order of the tiles of an (n, m) matrix."""

    def __init__(self, like: Tensor, n: int, m: int, tile: int) -> None:
        self.shape, self.tile = (n, m), tile
        self.buffers = like.new_empty(2, min(tile, n) * min(tile, m))

    def all(self) -> Iterator[tuple[slice, slice]]:
        for i in range(0, self.shape[0], self.tile):
            for j in range(0, self.shape[1], self.tile):
                yield slice(i, min(i + self.tile, self.shape[0])), slice(j, min(j + self.tile, self.shape[1]))

    def upper(self) -> Iterator[tuple[slice, slice]]:
        """The tiles on and above the diagonal of a square matrix."""
        return ((rows, columns) for rows, columns in self.all() if rows.start <= columns.start)

    def product(self, a: Tensor, b: Tensor, rows: slice, columns: slice) -> Tensor:
        """a[rows] @ b[columns].T in the first buffer."""
        x, y = a[rows], b[columns]
        return torch.mm(x, y.T, out=self.buffers[0, : len(x) * len(y)].view(len(x), len(y)))

    def spare(self, tile: Tensor) -> Tensor:
        """The second buffer in the shape of ``tile``."""
        return self.buffers[1, : tile.numel()].view_as(tile)


class _LogSumExp2:
    """log2 sum 2^x of n rows, that are added piece by piece."""

    def __init__(self, like: Tensor, n: int) -> None:
        # Not -inf, which less itself is nan: the sum of an empty row stays 0 and its logarithm comes out as -inf.
        self.top = like.new_full((n,), torch.finfo(like.dtype).min)
        self.sum = like.new_zeros(n)

    def add(self, tile: Tensor, where: slice, dim: int, *, out: Tensor) -> None:
        """Add to the rows ``where`` the tile, summed over ``dim``; ``out`` is scratch, and may be the tile itself."""
        top = torch.maximum(self.top[where], tile.amax(dim))
        self.sum[where].mul_(torch.exp2(self.top[where] - top))
        self.sum[where].add_(torch.sub(tile, top.unsqueeze(dim), out=out).exp2_().sum(dim))
        self.top[where] = top

    def value(self) -> Tensor:
        return self.sum.log2() + self.top


class _PairGradients:
    """Gradients by a, b and scale from the tiles of W = dL/d(scale a b^T): scale W b, scale W^T a, sum of W (a b^T)."""

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


def _fill_diagonals(tile: Tensor, rows: slice, columns: slice, offsets: tuple[int, ...], value: float) -> None:
    """Set the entries j = i + offset of the whole matrix that lie in this tile."""
    for offset in offsets:
        k = offset + rows.start - columns.start
        if -tile.shape[0] < k < tile.shape[1]:
            tile.diagonal(k).fill_(value)


def _negate_diagonal(tile: Tensor, rows: slice, columns: slice) -> None:
    if rows.start == columns.start:  # square tiles from one corner: the diagonal crosses no others
        tile.diagonal().neg_()


def _refuse_second_derivative() -> None:
    """Under create_graph the weights would pass for constants (once_differentiable lets that through)."""
    if torch.is_grad_enabled():
        raise RuntimeError("Tiled losses have no second derivative; call backward without create_graph.")


def _nothing_summed(lse2: Tensor) -> Tensor:
    """Rows without a summand get weights 2^(-inf - inf) = 0 instead of nan."""
    return lse2.masked_fill(lse2 == -math.inf, math.inf)


def _at_least_float32(*tensors: Tensor) -> Any:
    """All in the widest dtype among them and float32; autograd casts their gradients back."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    cast = tuple(tensor.to(dtype) for tensor in tensors)
    return cast if len(cast) > 1 else cast[0]


def _scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """A tensor () beside ``like``, without waiting for the device."""
    if isinstance(value, Tensor):
        return value.reshape(()).to(like.device, like.dtype, non_blocking=True)
    return like.new_full((), value)


def _tile(like: Tensor) -> int:
    """On a processor two tiles in the second-level cache; accelerators want fewer, larger kernels."""
    return 512 if like.device.type == "cpu" else 4096
