"""Finds BatchNorm, the only layer in which the samples of a forward pass depend on each other."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

COUNTER = "num_batches_tracked"  # name of a buffer; it is not a weight, and files of old torch versions lack it


def batch_norms(*modules: nn.Module) -> list[_BatchNorm]:
    """Return every BatchNorm layer of the modules; without one, the samples of a batch do not depend on each other."""
    return [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]
