"""Finding BatchNorm, the one layer that couples the samples of a forward pass."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

COUNTER = "num_batches_tracked"  # a buffer's name; no weight, and files of old torch versions lack it


def batch_norms(*modules: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm layer in there; none means that nothing couples the batch."""
    return [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]
