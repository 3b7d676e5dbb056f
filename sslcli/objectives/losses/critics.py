"""Critics: f(x, y) for every pair of a batch, as a matrix with the joint pairs on its diagonal.

Entry (i, j) is f(x_i, y_j). Diagonal pairs were drawn together; the others stand for independent draws.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.objectives.heads import mlp_head, widened


class Critic(nn.Module):
    """A function from x (N, D) and y (N, D) to scores (N, N), in float32 or better even under autocast."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the score of every pair."""
        with torch.autocast(x.device.type, enabled=False):
            return self.score(widened(x), widened(y))

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the score of every pair; a subclass defines it."""
        raise NotImplementedError


class Cosine(Critic):
    """The cosine divided by a temperature; it has no weights, so all learning is left to the encoder.

    Args:
        temperature: divides the cosines.
        offset: learn an additive constant. A critic that estimates a log density ratio needs one
            (like SigLIP's bias, Zhai et al. 2023); a softmax is invariant to it.
    """

    def __init__(self, *, temperature: float, offset: bool) -> None:
        super().__init__()
        self.temperature = temperature
        self.offset = nn.Parameter(torch.zeros(())) if offset else None

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        scores = F.normalize(x, dim=1) @ F.normalize(y, dim=1).T / self.temperature
        return scores if self.offset is None else scores + self.offset


class Separable(Critic):
    """g(x)^T h(y) with two MLPs (two hidden layers each): 2 N passes for N^2 scores."""

    def __init__(self, dim: int, *, hidden_dim: int, width: int = 32) -> None:
        super().__init__()
        self.g = mlp_head(dim, hidden_dim, width, depth=3, norm="none")
        self.h = mlp_head(dim, hidden_dim, width, depth=3, norm="none")

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        return self.g(x) @ self.h(y).T


class Bilinear(Critic):
    """x^T W y, the critic of CPC (van den Oord et al. 2018, equation 3); starts at 0."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim, dim))
        self.offset = nn.Parameter(torch.zeros(()))

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ self.weight @ y.T + self.offset


class Concat(Critic):
    """An MLP (two hidden layers) on the concatenation [x_i, y_j] of all N^2 pairs.

    The first layer is linear in the two halves, so that W [x, y] = W_x x + W_y y takes 2 N products;
    the hidden layers see N^2 rows: 64 MiB each at N = 256 and 256 units.
    """

    def __init__(self, dim: int, *, hidden_dim: int) -> None:
        super().__init__()
        self.from_x = nn.Linear(dim, hidden_dim)
        self.from_y = nn.Linear(dim, hidden_dim, bias=False)
        self.rest = mlp_head(hidden_dim, hidden_dim, 1, depth=2, norm="none")

    def score(self, x: Tensor, y: Tensor) -> Tensor:
        hidden = self.from_x(x)[:, None] + self.from_y(y)
        return self.rest(hidden.relu_()).squeeze(2)
