"""Features in two dimensions, and how they are spread: PCA, UMAP where it is installed, singular values."""

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
    """Maps of features (N, D), whose rows count by their direction, as in the kNN probe."""
    rows = F.normalize(features.float(), dim=1)
    found = [pca(rows)]
    if importlib.util.find_spec("umap") and len(rows) > 15:
        with contextlib.suppress(Exception):  # one that does not fit this Python or its numba costs its map only
            found.append(umap(rows))
    return found


def pca(rows: Tensor) -> Map:
    """The plane of the two largest principal components of rows (N, D), and the share of the variance that it holds."""
    centred = (rows - rows.mean(0)).double()
    variance, vectors = torch.linalg.eigh(_smaller_gram(centred))
    largest = vectors[:, -2:].flip(1)
    if len(vectors) == centred.shape[1]:
        points = centred @ largest
    else:  # the eigenvectors are the samples' coordinates already, but for their lengths
        points = largest * variance[-2:].flip(0).clamp(min=0).sqrt()
    share = float(variance[-2:].sum() / variance.sum().clamp(min=1e-30))
    return Map(f"PCA, {100 * share:.0f} % of the variance", F.pad(points.float(), (0, 2 - points.shape[1])))


def umap(rows: Tensor) -> Map:
    """UMAP (McInnes et al. 2018) with its own defaults, by cosine, seeded."""
    from umap import UMAP

    points = UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(rows.numpy())
    return Map("UMAP, cosine, 15 neighbours", torch.from_numpy(points))


def singular_values(features: Tensor) -> Tensor:
    """Those of the centred features (N, D), largest first, down to 1e-7 of the largest: at most D, and N - 1.

    They are read from the Gram matrix in float64, which takes a fifth of the time of a decomposition of the features.
    """
    centred = (features - features.mean(0)).double()
    values = torch.linalg.eigvalsh(_smaller_gram(centred)).flip(0).clamp(min=0).sqrt()
    return values[: len(features) - 1]


def _smaller_gram(x: Tensor) -> Tensor:
    """x^T x (D, D) or x x^T (N, N) of x (N, D), which have the same eigenvalues above 0."""
    return x.T @ x if x.shape[1] <= len(x) else x @ x.T
