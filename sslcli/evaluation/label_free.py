"""Label-free metrics: how features are distributed, and whether they have collapsed.

In a complete collapse all samples have nearly the same feature. In a dimensional collapse (Jing et al. 2021,
arXiv:2110.09348) the features differ, but along a few directions only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# By metric, whether higher is better; None where neither is: a good slope is about 1, and r2 only says if it is one.
HIGHER_IS_BETTER: Mapping[str, bool | None] = {
    "rankme": True,
    "alignment": False,
    "uniformity": False,
    "dimension_std": True,
    "lidar": True,
    "alpha_req": None,
    "alpha_req_r2": None,
}

OF_VIEWS = ("alignment", "lidar")  # what compares the views of a sample, and says nothing where they are equal


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al. 2023, arXiv:2210.02885): the effective rank of features (N, D), in [1, min(N, D)].

    It is the exponential of the entropy of the normalised singular values of the features (not centred), with the
    paper's epsilon of 1e-7. It is near 1 after either collapse. It is meant to compare runs of one method and one
    encoder, not different methods.
    """
    return float(effective_rank(torch.linalg.svdvals(features.double()), epsilon=1e-7))


def effective_rank(spectrum: Tensor, epsilon: float) -> Tensor:
    """Return the exponential of the entropy of a spectrum (D,) >= 0: the number of equal values with that entropy."""
    p = spectrum / spectrum.sum().clamp(min=1e-12) + epsilon
    return torch.exp(-(p * p.log()).sum())


def alignment(z1: Tensor, z2: Tensor) -> float:
    """Return the mean squared distance of a sample's normalised views (Wang and Isola, arXiv:2005.10242), in [0, 4].

    It is 0 for features that are invariant to the views, but also after a complete collapse: read it together with
    ``uniformity``.

    Args:
        z1: (N, D) features of the first views.
        z2: (N, D) features of the second views of the same samples.
    """
    return float((F.normalize(z1.double(), dim=1) - F.normalize(z2.double(), dim=1)).pow(2).sum(1).mean())


def uniformity(z: Tensor, *, chunk: int = 1024) -> float:
    """Return the log of the mean of exp(-2 |zi - zj|^2) over pairs of normalised rows (Wang and Isola 2020), at most 0.

    It is about -4 + 8 / D for a uniform distribution on the sphere, the minimum for many samples, and 0 after a
    complete collapse.

    Args:
        z: (N, D) features, N at least 2.
        chunk: rows at a time; memory is chunk x N.
    """
    n = len(z)
    z = F.normalize(z.double(), dim=1)
    total = 0.0
    for start in range(0, n, chunk):
        # |zi - zj|^2 = 2 - 2 cos. Each pair once: row i of this chunk against all rows after i.
        potential = (4 * (z[start : start + chunk] @ z[start:].T) - 4).exp()
        total += float(potential.triu(diagonal=1).sum())
    return math.log(total / (n * (n - 1) / 2))


def dimension_std(z: Tensor) -> float:
    """Return the std of each dimension of the normalised rows (N, D), averaged (Chen and He 2020, figure 2).

    It is in [0, 1 / sqrt(D)]: the maximum if rows are centred and all dimensions have the same variance, 0 after a
    complete collapse. Features after a ReLU have a common direction, so a good encoder reaches about half.
    """
    return float(F.normalize(z.double(), dim=1).std(dim=0, correction=0).mean())


class PowerLaw(NamedTuple):
    """A power law fitted to a spectrum: a line in log-log axes."""

    slope: float  # alpha in eigenvalue_j ~ j^-alpha; nan if fewer than three eigenvalues remain
    r2: float  # share of the variance of the log eigenvalues that the fit explains; at most 1
    first: int  # the fit's range of ranks j, from 1, both ends included
    last: int


def alpha_req(features: Tensor, *, first: int = 11, last: int = 100) -> PowerLaw:
    """alpha-ReQ (Agrawal et al. 2022): how fast the eigenvalues of the covariance of features (N, D) decay.

    The slope is fitted by least squares of log eigenvalue on log rank. It is about 1 for good features, near 0 for
    white noise, and well above 1 after a dimensional collapse. It is nan for fewer than three eigenvalues, and so after
    a complete collapse. It is meaningful only together with ``r2``: below about 0.9 there is no power law.

    Args:
        features: (N, D).
        first: smallest rank of the fit, as the head of a spectrum does not follow a power law; if fewer than
            ``3 * first`` eigenvalues remain, a third of them is skipped.
        last: largest rank of the fit, as the tail of a spectrum is noise.
    """
    eigenvalues = spectrum(features, torch.ones(len(features), dtype=torch.float64, device=features.device))
    # Rounding noise of float32 features in an unused direction, relative to the scale of the features.
    floor = 1e-12 * float(features.double().pow(2).sum(1).mean())
    count = int((eigenvalues > floor).sum())
    last = min(last, count)
    first = min(first, last // 3 + 1)
    if last - first < 2:
        return PowerLaw(math.nan, math.nan, first, last)
    slope, r2 = fit(eigenvalues, first, last)
    return PowerLaw(-float(slope), float(r2), first, last)


def spectrum(features: Tensor, weights: Tensor) -> Tensor:
    """Return the eigenvalues, descending, of the covariance of features (N, D) with ``weights`` (N,) of the rows."""
    share = (weights / weights.sum())[:, None]
    centred = features.double() - (share * features.double()).sum(dim=0)
    rows = share.sqrt() * centred
    # X^T X and X X^T have the same eigenvalues above 0; use the smaller matrix.
    gram = rows.T @ rows if len(rows) >= rows.shape[1] else rows @ rows.T
    return torch.linalg.eigvalsh(gram).flip(0)


def fit(eigenvalues: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Return slope and r2 of the line through log eigenvalue over log rank, from rank ``first`` to ``last``."""
    x = torch.arange(first, last + 1, dtype=torch.float64, device=eigenvalues.device).log()
    y = eigenvalues[first - 1 : last].log()
    x, y = x - x.mean(), y - y.mean()
    slope = x @ y / (x @ x)
    explained, total = slope**2 * (x @ x), y @ y
    # Equal eigenvalues are a power law with slope 0, and their remaining variance is rounding noise.
    return slope, torch.where(total > 1e-20, explained / total, torch.ones_like(total))


def lidar(groups: Tensor, *, delta: float = 1e-4, epsilon: float = 1e-8) -> float:
    """LiDAR (Thilak et al. 2023, arXiv:2312.04000): the number of directions that separate samples across their views.

    It is the effective rank of Fisher's discriminant matrix, Sw^-1/2 Sb Sw^-1/2, with samples as classes, in
    [1, min(n - 1, D)]. Unlike RankMe it does not count directions in which only the views of a sample differ. It is
    near 1 after either collapse. The paper uses n = 1000 samples and q = 50 views.

    Args:
        groups: (n, q, D), q views of each of n samples, both at least 2.
        delta: added to the diagonal of the within-sample covariance, so that it is invertible.
        epsilon: added to the normalised eigenvalues, so that their logarithms are finite.
    """
    weights = torch.ones(len(groups), dtype=torch.float64, device=groups.device)
    return float(effective_rank(discriminant(groups, weights, delta), epsilon))


def discriminant(groups: Tensor, weights: Tensor, delta: float = 1e-4) -> Tensor:
    """Return the eigenvalues of Fisher's discriminant matrix of groups (n, q, D) with ``weights`` (n,)."""
    n, q, dim = groups.shape
    groups = groups.double()
    share = n * weights / weights.sum()
    means = groups.mean(dim=1)
    within = (share.sqrt()[:, None, None] * (groups - means[:, None])).flatten(0, 1)
    between = share.sqrt()[:, None] * (means - (share[:, None] * means).mean(dim=0))
    scatter = within.T @ within / (n * (q - 1)) + delta * torch.eye(dim, dtype=within.dtype, device=within.device)
    # With Sw = L L^T, L^-1 Sb L^-T has the same eigenvalues: the squared singular values of between L^-T.
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(scatter), between.T, upper=False)
    return torch.linalg.svdvals(white).pow(2) / (n - 1)


def spread(clean: Tensor, one: Tensor, two: Tensor, groups: Tensor | None = None) -> dict[str, float]:
    """Return all metrics of this module by name, without those that are not finite.

    Args:
        clean: (N, D) features of clean views.
        one: (N, D) features of a random view of each sample.
        two: (N, D) features of another.
        groups: (n, q, D) features of q random views of n samples, for ``lidar``; None leaves out ``lidar`` and
            ``alpha_req``.
    """
    found = {
        "rankme": rankme(clean),
        "alignment": alignment(one, two),
        "uniformity": uniformity(clean),
        "dimension_std": dimension_std(clean),
    }
    if groups is not None:
        law = alpha_req(clean)
        found |= {"lidar": lidar(groups), "alpha_req": law.slope, "alpha_req_r2": law.r2}
    return {name: value for name, value in found.items() if math.isfinite(value)}


# If the mean cosine of rows is 0.99, their mean squared distance is 0.02. Then uniformity is at least -0.04 (Jensen),
# and dimension_std is at most a tenth of 1 / sqrt(D): both thresholds stand for the same complete collapse.
COLLAPSED_STD = 0.1
COLLAPSED_UNIFORMITY = -0.04
# A share of min(N, D). At D = 1024, N = 2,000: 0.42 at random init, 0.30 after InfoNCE, 0.06 after 150 steps of VICReg
# without variance and covariance terms.
COLLAPSED_RANK = 0.1
# Good encoders are near 1 (Agrawal et al.; 1.1 at random init, 1.4 after InfoNCE); that collapsed VICReg run had 2.3.
COLLAPSED_SLOPE = 2.0


def collapse(metrics: Mapping[str, float], *, samples: int, dim: int) -> list[str]:
    """Return a warning for each metric of (samples, dim) features that indicates a collapse.

    The thresholds are rough: compare with the same encoder before training.

    Args:
        metrics: values by the names of the functions here (``alpha_req`` is its slope); any subset.
        samples: number N of features, and for ``lidar`` the number of groups minus one.
        dim: width D of the features.
    """
    least_rank = COLLAPSED_RANK * min(samples, dim)
    below = {
        "dimension_std": (COLLAPSED_STD * dim**-0.5, "complete collapse: all samples have nearly the same feature"),
        "rankme": (least_rank, "dimensional collapse: the features use few directions"),
        "lidar": (least_rank, "dimensional collapse: few directions tell samples apart"),
    }
    above = {
        "uniformity": (COLLAPSED_UNIFORMITY, "complete collapse: all samples have nearly the same feature"),
        "alpha_req": (COLLAPSED_SLOPE, "dimensional collapse: the spectrum falls off steeply"),
    }
    lines = [
        f"{name} {metrics[name]:.4g} is below {threshold:.4g}; {meaning}"
        for name, (threshold, meaning) in below.items()
        if name in metrics and metrics[name] < threshold
    ]
    lines += [
        f"{name} {metrics[name]:.4g} is above {threshold:.4g}; {meaning}"
        for name, (threshold, meaning) in above.items()
        if name in metrics and metrics[name] > threshold
    ]
    return lines
