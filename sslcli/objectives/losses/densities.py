"""Mutual information in nats from Gaussian models of the embeddings, without a critic and without negative pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.objectives.heads import mlp_head, widened
from sslcli.objectives.losses.estimates import off_diagonal
from sslcli.objectives.losses.estimators import Estimate


def covariance(x: Tensor, shrinkage: float) -> Tensor:
    """Return (1 - s) C + s tr(C)/D 1, (D, D): the sample covariance shrunk towards a multiple of the identity."""
    centred = x - x.mean(0)
    raw = centred.T @ centred / (len(x) - 1)
    return (1 - shrinkage) * raw + shrinkage * raw.trace() / len(raw) * _identity(raw)


def _identity(like: Tensor) -> Tensor:
    return torch.eye(len(like), dtype=like.dtype, device=like.device)


def log_det(matrix: Tensor) -> Tensor:
    """Return the log determinant of a symmetric positive definite matrix, from its Cholesky factor."""
    return 2 * lower_factor(matrix).diagonal().log().sum()


def lower_factor(matrix: Tensor) -> Tensor:
    """Return the Cholesky factor; nan if there is none, as raising an error would synchronise with the device."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where(info == 0, factor, torch.nan)


def gaussian_entropy(x: Tensor, shrinkage: float) -> Tensor:
    """Return 1/2 log det(2 pi e C), the largest entropy for covariance C, which only a Gaussian attains."""
    return (log_det(covariance(x, shrinkage)) + x.shape[1] * math.log(2 * math.pi * math.e)) / 2


def gaussian_information(x: Tensor, y: Tensor, shrinkage: float) -> Tensor:
    """Return -1/2 log det(1 - M M^T), M = Cx^(-1/2) Cxy Cy^(-1/2): -1/2 sum log(1 - rho^2), canonical correlations rho.

    Cholesky factors replace the square roots: they give the same determinant, without the gradients of eigenvalues,
    which diverge where two are equal. Cxy is multiplied by 1 - s, like the off-diagonals of Cx and Cy, so that the
    joint covariance stays positive definite.
    """
    cross = (1 - shrinkage) * (x - x.mean(0)).T @ (y - y.mean(0)) / (len(x) - 1)
    lx, ly = (lower_factor(covariance(v, shrinkage)) for v in (x, y))
    half = torch.linalg.solve_triangular(lx, cross, upper=False)
    m = torch.linalg.solve_triangular(ly, half.T, upper=False)
    return -log_det(_identity(m) - m @ m.T) / 2


class DensityEstimator(nn.Module):
    """An estimate from embeddings x (N, D), y (N, D).

    Args:
        shrinkage: shrinkage of the covariances, in [0, 1); needed with fewer than about ten samples per dimension.
    """

    def __init__(self, *, shrinkage: float) -> None:
        super().__init__()
        if not 0 <= shrinkage < 1:
            raise ValueError(f"shrinkage={shrinkage} must be at least 0 and below 1")
        self.shrinkage = shrinkage

    def forward(self, x: Tensor, y: Tensor) -> Estimate:
        """Return the loss and the estimate of a batch."""
        with torch.autocast(x.device.type, enabled=False):
            value = self.value(widened(x), widened(y))
        return Estimate(-value, value.detach())

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the estimate in nats."""
        raise NotImplementedError


class Gaussian(DensityEstimator):
    """Exact for Gaussians; a lower bound where both marginals are Gaussian; biased up by D^2/(2N) where N >> D."""

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        return gaussian_information(x, y, self.shrinkage)


class BarberAgakov(DensityEstimator):
    """h(y) + E log q(y|x) (Barber and Agakov 2003) with a learned Gaussian q.

    With the true entropy of y it is a lower bound. That entropy is unknown, and is replaced by the entropy of a
    Gaussian with the same covariance, which is larger. The sum is then
    I + KL(p(y) || its Gaussian) - E KL(p(y|x) || q), which is a bound only if y is Gaussian.

    Args:
        dim: width of x and y.
        hidden_dim: width of the hidden layers of q.
        shrinkage: shrinkage of y's covariance.
    """

    def __init__(self, dim: int, *, hidden_dim: int, shrinkage: float) -> None:
        super().__init__(shrinkage=shrinkage)
        self.q = ConditionalGaussian(dim, hidden_dim=hidden_dim)

    def value(self, x: Tensor, y: Tensor) -> Tensor:
        return gaussian_entropy(y, self.shrinkage) + self.q(x, y).mean()


class ConditionalGaussian(nn.Module):
    """q(y|x) = N(mean(x), diag(e^s(x))); the log variance s is not bounded."""

    def __init__(self, dim: int, *, hidden_dim: int) -> None:
        super().__init__()
        self.net = mlp_head(dim, hidden_dim, 2 * dim, depth=3, norm="none")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log q(y_i | x_i), (N,)."""
        mean, log_variance = self.net(x).chunk(2, dim=1)
        return _log_normal(y, mean, log_variance)

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Return log q(y_j | x_i), (N, N)."""
        mean, log_variance = self.net(x).chunk(2, dim=1)
        return _log_normal(y, mean[:, None], log_variance[:, None])


def _log_normal(y: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    return -((y - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi)).sum(-1) / 2


def club(log_q: Tensor) -> Tensor:
    """Return E_P log q(y|x) - E_Q log q(y|x) (Cheng et al. 2020, arXiv:2006.12013) from log q(y_j | x_i), (N, N).

    It is an upper bound if q is p(y|x) or close to it; with a poor q it is neither an upper nor a lower bound.
    """
    return log_q.diagonal().mean() - off_diagonal(log_q).mean()


def leave_one_out(log_q: Tensor) -> Tensor:
    """Return E log q(y_i|x_i) / mean_(j != i) q(y_i|x_j) (L1Out; Poole et al. 2019) from log q(y_j | x_i), (N, N).

    It is an upper bound if q is p(y|x). The diagonal is excluded from the mean exactly, by -inf.
    """
    n = len(log_q)
    others = log_q.masked_fill(torch.eye(n, dtype=torch.bool, device=log_q.device), -math.inf)
    return (log_q.diagonal() - others.logsumexp(0) + math.log(n - 1)).mean()
