"""The small networks between an encoder and a loss."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["batch", "layer", "none"]


def mlp_head(in_dim: int, hidden_dim: int, out_dim: int, *, depth: int, norm: Norm) -> nn.Sequential:
    """A projector of ``depth`` linear layers, with norm and ReLU after all but the last.

    ``batch`` couples the samples of a forward pass, as published; ``layer`` and ``none`` do not.
    """
    if min(hidden_dim, out_dim, depth) < 1:
        raise ValueError("the head's hidden_dim, width and depth must be at least 1")
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(in_dim, hidden_dim, bias=norm == "none"), *_norm(norm, hidden_dim), nn.ReLU(True)]
        in_dim = hidden_dim
    return nn.Sequential(*layers, nn.Linear(in_dim, out_dim))


def _norm(norm: Norm, width: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm1d(width) if norm == "batch" else nn.LayerNorm(width)]
