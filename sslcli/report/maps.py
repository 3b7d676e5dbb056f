"""Maps of features in two dimensions by PCA and, if it is installed, UMAP; and singular values of features."""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Map:
    """Samples as points of a plane."""

    method: str
    points: Tensor  # (N, 2)


def maps(features: Tensor) -> list[Map]:
    """Return maps of features (N, D); rows are normalised to norm 1, as in the kNN probe."""
    rows = F.normalize(features.float(), dim=1)
    found = [pca(rows)]
    if importlib.util.find_spec("umap") and len(rows) > 15:
        with contextlib.suppress(Exception):  # an incompatible version of umap or numba
            found.append(umap(rows))
    return found


def pca(rows: Tensor) -> Map:
    """Project rows (N, D) on their two largest principal components; the name gives their share of the variance."""
    centred = (rows - rows.mean(0)).double()
    variance, vectors = torch.linalg.eigh(_smaller_gram(centred))
    largest = vectors[:, -2:].flip(1)
    if len(vectors) == centred.shape[1]:
        points = centred @ largest
    else:  # the eigenvectors are the samples' coordinates up to scale
        points = largest * variance[-2:].flip(0).clamp(min=0).sqrt()
    share = float(variance[-2:].sum() / variance.sum().clamp(min=1e-30))
    return Map(f"PCA, {100 * share:.0f} % of the variance", F.pad(points.float(), (0, 2 - points.shape[1])))


def umap(rows: Tensor) -> Map:
    """Map rows (N, D) by UMAP (McInnes et al. 2018) with its default options, cosine distance and a fixed seed."""
    from umap import UMAP

    points = UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(rows.numpy())
    return Map("UMAP, cosine, 15 neighbours", torch.from_numpy(points))


def singular_values(features: Tensor) -> Tensor:
    """Return the singular values of the centred features (N, D), in descending order: min(D, N - 1) values.

    They are computed from the Gram matrix in float64, in a fifth of the time of a singular value decomposition; values
    below about 1e-7 of the largest are not accurate.
    """
    centred = (features - features.mean(0)).double()
    values = torch.linalg.eigvalsh(_smaller_gram(centred)).flip(0).clamp(min=0).sqrt()
    return values[: len(features) - 1]


def _smaller_gram(x: Tensor) -> Tensor:
    """Return the smaller of x^T x (D, D) and x x^T (N, N) for x (N, D); both have the same eigenvalues above 0."""
    return x.T @ x if x.shape[1] <= len(x) else x @ x.T
