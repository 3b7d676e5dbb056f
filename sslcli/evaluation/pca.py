"""Principal axes of features, and whitening; neither copies all rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.evaluation.rows import gathered, in_pieces

_EXACT = 1024  # rows or columns; an exact decomposition of a few thousand takes longer than the rest of the probe


def principal_axes(
    rows: Tensor, count: int, centred: Callable[[Tensor], Tensor] = lambda piece: piece
) -> tuple[Tensor, Tensor]:
    """Return the variances (count,) and axes (D, count) of the largest principal components of rows (N, D).

    The result is exact up to 1,024 rows or columns. Above, a seeded randomised decomposition is used (Halko et al.
    2011): of the covariance, which is added up piece by piece, or of the rows, where these are fewer than the columns.
    With at most 1,024 rows and more columns, the axis of a component without variance is zero.

    Args:
        rows: features; only ``centred`` pieces of them are read.
        count: number of components.
        centred: makes the mean of every column 0, and may scale columns; by default the rows are as they should be.
    """
    count = min(count, *rows.shape)
    if rows.shape[1] <= min(_EXACT, len(rows)):
        # In float64: with constant and repeated columns the float32 solver may not converge.
        variance, axes = torch.linalg.eigh(_covariance(rows, centred))
        return variance[-count:].clamp(min=0).float(), axes[:, -count:].float()
    if len(rows) <= _EXACT:
        return _axes_of_few_rows(centred(rows).double(), count)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if len(rows) < rows.shape[1]:
            _, singular, axes = torch.svd_lowrank(centred(rows), q=min(count + 32, *rows.shape), niter=4)
            return singular[:count] ** 2 / len(rows), axes[:, :count]
        # A product with the covariance is two with the rows, so half as many iterations do.
        _, variance, axes = torch.svd_lowrank(_covariance(rows, centred).float(), q=count + 32, niter=2)
    return variance[:count], axes[:, :count]


def _axes_of_few_rows(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the same from the products of rows (N, N): if their eigenvector is u, the axis is X' u / |X' u|."""
    squares, rows = torch.linalg.eigh(centred @ centred.T)
    squares, rows = squares[-count:], rows[:, -count:]
    has_variance = squares > 1e-12 * squares.max()
    axes = centred.T @ rows / squares.clamp(min=1e-300).sqrt()
    return (squares.clamp(min=0) / len(centred)).float(), torch.where(has_variance, axes, 0).float()


def _covariance(rows: Tensor, centred: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the covariance (D, D) in float64."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for piece in map(centred, in_pieces(rows)):
        total += (piece.T @ piece).double()
    return total / len(rows)


def whitened(bank: Tensor, queries: Tensor, *, components: int) -> tuple[Tensor, Tensor]:
    """Project both on the largest principal components of ``bank`` (N, D), each scaled to unit variance.

    Columns are standardised first, and a thousandth of the mean variance is added to each variance, so that noise in
    directions without signal is not amplified.
    """
    mean, std = bank.mean(0), bank.std(0) + 1e-3 * bank.std() + 1e-12

    def standardised(piece: Tensor) -> Tensor:
        return (piece - mean) / std

    variance, axes = principal_axes(bank, components, standardised)
    axes = axes / (variance + 1e-3).sqrt()
    one, two = (
        gathered((standardised(piece) @ axes for piece in in_pieces(rows)), len(rows), "whitening")
        for rows in (bank, queries)
    )
    return one, two


def whitening(rows: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """Return the map to the ``count`` largest principal components of ``rows`` (N, D), scaled to unit variance."""
    mean = rows.mean(0)
    variance, axes = principal_axes(rows - mean, count)
    used = variance > 1e-8 * variance.max()  # in an unused direction, scaling would amplify rounding noise
    axes = axes[:, used] / variance[used].sqrt()
    return lambda part: (part - mean) @ axes
