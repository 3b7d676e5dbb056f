"""Small constant tensors on a device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``values`` as a tensor, copied to the device once and not in every step, where the copy would wait."""
    with torch.inference_mode(False):  # whoever asks first, the others may need gradients
        return torch.tensor(values, dtype=dtype, device=device)
