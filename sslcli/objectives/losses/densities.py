"""Mutual information from Gaussian models of the embeddings themselves, in nats: no critic, no pairs beside."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.objectives.heads import mlp_head, widened
from sslcli.objectives.losses.estimates import off_diagonal
from sslcli.objectives.losses.estimators import Estimate


def covariance(x: Tensor, shrinkage: float) -> Tensor:
    """(D, D) (1 - s) C + s tr(C)/D 1, the sample covariance drawn towards a sphere of the same trace."""
    centred = x - x.mean(0)
    raw = centred.T @ centred / (len(x) - 1)
    return (1 - shrinkage) * raw + shrinkage * raw.trace() / len(raw) * _identity(raw)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)


def log_det(matrix: Tensor) -> Tensor:
    """Of a symmetric positive definite matrix, through its Cholesky factor."""
    return 2 * lower_factor(matrix).diagonal().log().sum()


def lower_factor(matrix: Tensor) -> Tensor:
    """Cholesky's; nan if the matrix has none, since an error would have to wait for the device."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where(info == 0, factor, torch.nan)


def gaussian_entropy(x: Tensor, shrinkage: float) -> Tensor:
    """1/2 log det(2 pi e C): the largest entropy that covariance C admits, reached by a Gaussian only."""
    return (log_det(covariance(x, shrinkage)) + x.shape[1] * math.log(2 * math.pi * math.e)) / 2


def gaussian_information(x: Tensor, y: Tensor, shrinkage: float) -> Tensor:
    """-1/2 log det(1 - M M^T), M = Cx^(-1/2) Cxy Cy^(-1/2): -1/2 sum log(1 - rho^2) over canonical correlations.

    Cholesky factors L instead of roots: the same determinant, and no eigenvalues whose gradients blow up where
    two meet. Cxy shrinks by 1 - s as the others' off-diagonals do, so that the joint covariance stays positive.
    """
    cross = (1 - shrinkage) * (x - x.mean(0)).T @ (y - y.mean(0)) / (len(x) - 1)
    lx, ly = (lower_factor(covariance(v, shrinkage)) for v in (x, y))
    half = torch.linalg.solve_triangular(lx, cross, upper=False)
    m = torch.linalg.solve_triangular(ly, half.T, upper=False)
    return -log_det(_identity(m) - m @ m.T) / 2


class DensityEstimator(nn.Module):
    """An estimate from embeddings x (N, D), y (N, D).

    Args:
        shrinkage: of covariances; with fewer than some ten samples a dimension they need it.
    """

    def __init__(self, *, shrinkage: float) -> None:
        super().__init__()
        if not 0 <= shrinkage < 1:
            raise ValueError(f"shrinkage={shrinkage} must be at least 0 and below 1")
        self.shrinkage = shrinkage

    def forward(self, x: Tensor, y: Tensor) -> Estimate:
        """The loss and the estimate of a batch."""
        with torch.autocast(x.device.type, enabled=False):
            value = self.value(widened(x), widened(y))
        return Estimate(-value, value.detach())

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        """The estimate in nats."""
        raise NotImplementedError


class Gaussian(DensityEstimator):
    """Exact for Gaussians; a lower bound where both marginals are Gaussian; biased up by D^2/(2N) where N >> D."""

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        return gaussian_information(x, y, self.shrinkage)


class BarberAgakov(DensityEstimator):
    """h(y) + E log q(y|x) (Barber and Agakov 2003) with a learned Gaussian q.

    With y's entropy it is a lower bound. That entropy is unknown and the Gaussian one stands for it, which is
    above it: the sum is I + KL(p(y) || its Gaussian) - E KL(p(y|x) || q), a bound only if y is Gaussian.

    Args:
        dim: of x and y.
        hidden_dim: of q.
        shrinkage: of y's covariance.
    """

    def __init__(self, dim: int, *, hidden_dim: int, shrinkage: float) -> None:
        super().__init__(shrinkage=shrinkage)
        self.q = ConditionalGaussian(dim, hidden_dim=hidden_dim)

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        return gaussian_entropy(y, self.shrinkage) + self.q(x, y).mean()


class ConditionalGaussian(nn.Module):
    """q(y|x) = N(mean(x), diag(e^s(x))); s is free, so that no variance is out of reach."""

    def __init__(self, dim: int, *, hidden_dim: int) -> None:
        super().__init__()
        self.net = mlp_head(dim, hidden_dim, 2 * dim, depth=3, norm="none")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) log q(y_i | x_i)."""
        mean, log_variance = self.net(x).chunk(2, dim=1)
        return _log_normal(y, mean, log_variance)

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, N) log q(y_j | x_i)."""
        mean, log_variance = self.net(x).chunk(2, dim=1)
        return _log_normal(y, mean[:, None], log_variance[:, None])


def _log_normal(y: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    return -((y - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi)).sum(-1) / 2


def club(log_q: Tensor) -> Tensor:
    """E_P log q(y|x) - E_Q log q(y|x) (Cheng et al. 2020, arXiv:2006.12013) of log q(y_j | x_i), (N, N).

    An upper bound if q is p(y|x) or close to it; with a poor q it bounds neither way.
    """
    return log_q.diagonal().mean() - off_diagonal(log_q).mean()


def leave_one_out(log_q: Tensor) -> Tensor:
    """E log q(y_i|x_i) / mean_(j != i) q(y_i|x_j) (L1Out; Poole et al. 2019) of log q(y_j | x_i).

    An upper bound if q is p(y|x). The diagonal is left out, not damped.
    """
    n = len(log_q)
    others = log_q.masked_fill(torch.eye(n, dtype=torch.bool, device=log_q.device), -math.inf)
    return (log_q.diagonal() - others.logsumexp(0) + math.log(n - 1)).mean()
