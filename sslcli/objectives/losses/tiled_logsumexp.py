"""Contrastive sums over all pairs in O(N D) memory: only one tile of the logits exists at a time.

The forward pass keeps one log-sum-exp per row, by the running maximum and sum of online softmax (Milakov and
Gimelshein 2018, algorithm 3); the backward pass computes each tile again. A tile serves its rows and its columns, so
both directions of a cross-view loss cost one product, and only the upper triangle of a symmetric matrix is computed.

Logits are in units of log 2, because exp2 is cheaper than exp. Everything runs in float32 or better: logits at
temperature 0.07 reach 14, where bfloat16 has an error of 0.06. Autograd runs ``forward`` and ``backward`` under the
autocast state of their callers, so each disables autocast itself. There is no device synchronisation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.objectives.losses.tiles import (
    LogSumExp2,
    PairGradients,
    Tiles,
    at_least_float32,
    empty_sums_to_inf,
    fill_diagonals,
    hide_equal,
    negate_diagonal,
    refuse_second_derivative,
    scalar,
    tile_size,
)

LOG2E = math.log2(math.e)


def self_logsumexp(
    z: Tensor,
    scale: float | Tensor,
    *,
    exclude_partner: bool = False,
    same: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Return the log of the sum over j != i of exp(scale z_i . z_j) for every row i; -inf for an empty sum.

    Args:
        z: (M, D) rows, not normalised here.
        scale: one over the temperature; a tensor () may require a gradient.
        exclude_partner: exclude j = (i + M/2) mod M as well, the other view of sample i.
        same: (M,) int64; rows with the number of row i are excluded as well, except its other view.
        tile: number of rows and columns of a tile.

    Returns:
        (M,) natural logarithms.
    """
    z = at_least_float32(z)
    partner = (len(z) // 2, -(len(z) // 2))
    excluded, kept = ((0, *partner), ()) if exclude_partner else ((0,), partner)
    return _SelfLogSumExp.apply(z, scalar(scale, z), excluded, tile or tile_size(z), same, kept)


def cross_logsumexp(
    a: Tensor, b: Tensor, scale: float | Tensor, *, same: Tensor | None = None, tile: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the log of the sum of exp(scale a_i . b_j) over j for every i and over i for every j, in one pass.

    Args:
        a: (N, D) rows, not normalised here.
        b: (M, D) columns.
        scale: one over the temperature; a tensor () may require a gradient.
        same: (N,) or (N, K) int64, where M = N; pairs i, j of two samples with an equal number are excluded.
        tile: number of rows and columns of a tile.

    Returns:
        (N,) and (M,) natural logarithms.
    """
    a, b = at_least_float32(a, b)
    return _CrossLogSumExp.apply(a, b, scalar(scale, a), True, tile or tile_size(a), same)


def rows_logsumexp(
    a: Tensor, b: Tensor, scale: float | Tensor, *, same: Tensor | None = None, tile: int | None = None
) -> Tensor:
    """Return only the first result of ``cross_logsumexp``, (N,), without the cost of the second."""
    a, b = at_least_float32(a, b)
    return _CrossLogSumExp.apply(a, b, scalar(scale, a), False, tile or tile_size(a), same)[0]


def pair_softplus_sum(
    a: Tensor,
    b: Tensor,
    scale: float | Tensor,
    bias: float | Tensor,
    *,
    same: Tensor | None = None,
    tile: int | None = None,
) -> Tensor:
    """Return the sum over i, j of softplus(-y_ij (scale a_i . b_j + bias)), (), y = 1 where i = j and -1 elsewhere.

    Args:
        a: (N, D) rows, not normalised here.
        b: (M, D) columns.
        scale: multiplies the products; a tensor () may require a gradient.
        bias: added to the scaled products; a tensor () may require a gradient.
        same: as in ``cross_logsumexp``.
        tile: number of rows and columns of a tile.
    """
    a, b = at_least_float32(a, b)
    return _PairSoftplus.apply(a, b, scalar(scale, a), scalar(bias, a), tile or tile_size(a), same)


class _SelfLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        scale: Tensor,
        excluded: tuple[int, ...],
        tile: int,
        same: Tensor | None,
        kept: tuple[int, ...],
    ) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            scaled = z * (scale * LOG2E)
            tiles = Tiles(z, len(z), len(z), tile)
            total = LogSumExp2(z, len(z))
            for rows, columns in tiles.upper():
                logits = tiles.product(scaled, z, rows, columns)
                fill_diagonals(logits, rows, columns, excluded, -math.inf)
                hide_equal(logits, rows, columns, same, kept, -math.inf)
                total.add(logits, rows, 1, out=tiles.spare(logits))
                if rows != columns:
                    total.add(logits, columns, 0, out=logits)
            lse2 = total.value()
            ctx.save_for_backward(z, scale, lse2, same)
            ctx.excluded, ctx.kept, ctx.tile = excluded, kept, tile
            return lse2 / LOG2E

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        z, scale, lse2, same = ctx.saved_tensors
        with torch.autocast(z.device.type, enabled=False):
            scaled = z * (scale * LOG2E)
            lse2 = empty_sums_to_inf(lse2)
            tiles = Tiles(z, len(z), len(z), ctx.tile)
            # s_ij is in the sums of i and of j: W_ij = g_i p_ij + g_j p_ji, and dL/dz = scale W z.
            mixed = torch.zeros_like(z)
            for rows, columns in tiles.upper():
                logits = tiles.product(scaled, z, rows, columns)
                fill_diagonals(logits, rows, columns, ctx.excluded, -math.inf)
                hide_equal(logits, rows, columns, same, ctx.kept, -math.inf)
                weights = torch.sub(logits, lse2[rows, None], out=tiles.spare(logits)).exp2_().mul_(grad[rows, None])
                weights.add_(logits.sub_(lse2[columns]).exp2_().mul_(grad[columns]))
                mixed[rows].addmm_(weights, z[columns])
                if rows != columns:
                    mixed[columns].addmm_(weights.T, z[rows])
            # Each unordered pair occurs twice in sum_ij W_ij z_i . z_j.
            grad_scale = (z * mixed).sum() / 2 if ctx.needs_input_grad[1] else None
            return mixed.mul_(scale), grad_scale, None, None, None, None


class _CrossLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, scale: Tensor, both: bool, tile: int, same: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        with torch.autocast(a.device.type, enabled=False):
            scaled = a * (scale * LOG2E)
            tiles = Tiles(a, len(a), len(b), tile)
            over_j, over_i = LogSumExp2(a, len(a)), LogSumExp2(a, len(b))
            for rows, columns in tiles.all():
                logits = tiles.product(scaled, b, rows, columns)
                hide_equal(logits, rows, columns, same, (0,), -math.inf)
                if both:
                    over_i.add(logits, columns, 0, out=tiles.spare(logits))
                over_j.add(logits, rows, 1, out=logits)
            row2, column2 = over_j.value(), over_i.value()
            ctx.save_for_backward(a, b, scale, row2, column2, same)
            ctx.tile = tile
            ctx.set_materialize_grads(False)
            return row2 / LOG2E, column2 / LOG2E if both else None

    @staticmethod
    def backward(ctx: Any, grad_row: Tensor | None, grad_column: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        a, b, scale, row2, column2, same = ctx.saved_tensors
        grads = PairGradients(ctx, a, b)
        with torch.autocast(a.device.type, enabled=False):
            scaled = a * (scale * LOG2E)
            tiles = Tiles(a, len(a), len(b), ctx.tile)
            for rows, columns in tiles.all():
                logits = tiles.product(scaled, b, rows, columns)
                hide_equal(logits, rows, columns, same, (0,), -math.inf)
                weights = tiles.spare(logits)
                if grad_row is None:
                    weights.zero_()
                else:
                    torch.sub(logits, row2[rows, None], out=weights).exp2_().mul_(grad_row[rows, None])
                if grad_column is not None:
                    weights.add_(logits.sub_(column2[columns]).exp2_().mul_(grad_column[columns]))
                grads.add(weights, rows, columns)
            return *grads.value(scale), None, None, None


class _PairSoftplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, scale: Tensor, bias: Tensor, tile: int, same: Tensor | None) -> Tensor:
        with torch.autocast(a.device.type, enabled=False):
            ctx.save_for_backward(a, b, scale, bias, same)
            ctx.tile = tile
            scaled = a * scale
            tiles = Tiles(a, len(a), len(b), tile)
            total = a.new_zeros(())
            for rows, columns in tiles.all():
                logits = tiles.product(scaled, b, rows, columns).add_(bias)
                hide_equal(logits, rows, columns, same, (0,), -math.inf)
                negate_diagonal(logits, rows, columns)
                total += F.softplus(logits, threshold=40).sum()  # above 40, softplus(x) is x even in float64
            return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        a, b, scale, bias, same = ctx.saved_tensors
        grads = PairGradients(ctx, a, b)
        with torch.autocast(a.device.type, enabled=False):
            scaled = a * scale
            tiles = Tiles(a, len(a), len(b), ctx.tile)
            grad_bias = a.new_zeros(())
            for rows, columns in tiles.all():
                weights = tiles.product(scaled, b, rows, columns).add_(bias)
                hide_equal(weights, rows, columns, same, (0,), -math.inf)
                negate_diagonal(weights, rows, columns)
                weights.sigmoid_().mul_(grad)
                negate_diagonal(weights, rows, columns)
                grads.add(weights, rows, columns)
                grad_bias += weights.sum()
            return *grads.value(scale), grad_bias, None, None
