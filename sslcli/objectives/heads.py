"""The heads: small networks between an encoder and a loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["batch", "layer", "none"]


def mlp_head(
    in_dim: int,
    hidden_dim: int,
    out_dim: int,
    *,
    depth: int,
    norm: Norm,
    last_norm: bool = False,
    last_bias: bool = True,
) -> nn.Sequential:
    """Build a projector of ``depth`` linear layers, with norm and ReLU after all but the last; 0 is the identity.

    ``batch`` couples the samples of a forward pass, as published; ``layer`` and ``none`` do not.
    ``last_norm`` adds the norm, without scale and shift, after the last layer (MoCo v3, SimSiam).
    ``last_bias=False`` omits the bias of the last layer, where the loss does not depend on it (VICReg, Barlow Twins).
    Without a layer the output has ``in_dim`` columns, whatever ``out_dim`` is.
    """
    if min(hidden_dim, out_dim) < 1 or depth < 0:
        raise ValueError("the head's hidden_dim and width must be at least 1, and its depth at least 0")
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(in_dim, hidden_dim, bias=norm == "none"), *_norm(norm, hidden_dim), nn.ReLU(True)]
        in_dim = hidden_dim
    normed = last_norm and norm != "none"
    if depth:
        layers.append(nn.Linear(in_dim, out_dim, bias=last_bias and not normed))
        in_dim = out_dim
    return nn.Sequential(*layers, *(_norm(norm, in_dim, affine=False) if normed else []))


def widened(rows: Tensor) -> Tensor:
    """Cast to float32 or wider: losses compute in this precision on the outputs of half-precision heads."""
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _norm(norm: Norm, width: int, *, affine: bool = True) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm1d(width, affine=affine) if norm == "batch" else nn.LayerNorm(width, elementwise_affine=affine)]
