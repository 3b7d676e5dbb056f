"""Principal axes of features, and whitening."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_axes(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the variances (count,) and axes (D, count) of the largest principal components of centred rows (N, D).

    The result is exact up to 1,024 columns. Above, a seeded randomised decomposition is used (Halko et al. 2011), as an
    exact one of a few thousand columns takes longer than the rest of the probe.
    """
    count = min(count, *centred.shape)
    if centred.shape[1] <= 1024:
        # In float64: with constant and repeated columns the float32 solver may not converge.
        variance, axes = torch.linalg.eigh((centred.T @ centred).double() / len(centred))
        return variance[-count:].clamp(min=0).float(), axes[:, -count:].float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, singular, axes = torch.svd_lowrank(centred, q=min(count + 32, *centred.shape), niter=4)
    return singular[:count] ** 2 / len(centred), axes[:, :count]


def whitened(bank: Tensor, queries: Tensor, *, components: int) -> tuple[Tensor, Tensor]:
    """Project both on the largest principal components of ``bank`` (N, D), each scaled to unit variance.

    Columns are standardised first, and a thousandth of the mean variance is added to each variance, so that noise in
    directions without signal is not amplified.
    """
    mean, std = bank.mean(0), bank.std(0) + 1e-3 * bank.std() + 1e-12
    bank, queries = (bank - mean) / std, (queries - mean) / std
    variance, axes = principal_axes(bank, components)
    axes = axes / (variance + 1e-3).sqrt()
    return bank @ axes, queries @ axes
