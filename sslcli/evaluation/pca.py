"""Principal axes of features, and whitening."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_axes(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Variances (count,) and axes (D, count) of the largest principal components of centred rows (N, D).

    Exact up to 1,024 columns; above, a seeded randomised decomposition (Halko et al. 2011), as an exact
    one of a few thousand columns takes longer than the rest of the probe.
    """
    count = min(count, *centred.shape)
    if centred.shape[1] <= 1024:
        # In float64: dead and repeated columns keep the float32 solver from converging.
        variance, axes = torch.linalg.eigh((centred.T @ centred).double() / len(centred))
        return variance[-count:].clamp(min=0).float(), axes[:, -count:].float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, singular, axes = torch.svd_lowrank(centred, q=min(count + 32, *centred.shape), niter=4)
    return singular[:count] ** 2 / len(centred), axes[:, :count]


def whitened(bank: Tensor, queries: Tensor, *, components: int) -> tuple[Tensor, Tensor]:
    """Both on the bank's (N, D) largest principal components, each scaled to unit variance.

    Columns are standardised first, and a thousandth of the mean variance is added to each, so that
    directions without signal are not blown up.
    """
    mean, std = bank.mean(0), bank.std(0) + 1e-3 * bank.std() + 1e-12
    bank, queries = (bank - mean) / std, (queries - mean) / std
    variance, axes = principal_axes(bank, components)
    axes = axes / (variance + 1e-3).sqrt()
    return bank @ axes, queries @ axes
