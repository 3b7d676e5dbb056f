"""Finds dropout, whose random numbers depend on how a batch is cut into micro-batches."""

from __future__ import annotations

from torch import nn

_RATES = ("p", "drop_prob", "prob", "dropout")  # attributes of Dropout, DropPath, PatchDropout and MultiheadAttention


def drops(*modules: nn.Module) -> bool:
    """Whether a layer of the modules drops anything at random."""
    rates = (getattr(layer, name, 0) for module in modules for layer in module.modules() for name in _RATES)
    return any(isinstance(rate, float) and rate > 0 for rate in rates)
