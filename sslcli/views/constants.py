"""Small constant tensors on a device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return ``values`` as a cached tensor, because a copy to the device in every step would make the host wait."""
    with torch.inference_mode(False):  # a cached inference tensor could not be used where gradients are needed
        return torch.tensor(values, dtype=dtype, device=device)
