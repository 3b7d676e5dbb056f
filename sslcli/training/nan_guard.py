"""A latch on the device that remembers the first step and term that went non-finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class NanGuard:
    """Looks at every step without waiting for it; the host reads the latch at log lines and before saving."""

    def __init__(self, device: torch.device) -> None:
        self._names: list[str] = []
        self._first = torch.full((2,), -1, dtype=torch.int64, device=device)  # step, index of the term

    def update(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Latch ``step`` and the first of ``values`` (scalars) that is not finite, unless something is latched."""
        self._names = list(values)
        bad = ~torch.isfinite(torch.stack([value.detach().float() for value in values.values()]))
        index = bad.int().argmax()
        now = torch.stack([torch.full_like(index, step), index])
        self._first = torch.where((self._first[0] < 0) & bad.any(), now, self._first)

    def first(self) -> tuple[int, str] | None:
        """The step and the name of the first non-finite term; waits for the device."""
        step, index = self._first.tolist()
        return None if step < 0 else (step, self._names[index])


def all_finite(modules: list[torch.nn.Module]) -> bool:
    """Whether every floating parameter and buffer is finite; waits for the device."""
    tensors = [
        tensor
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
        if tensor.is_floating_point()
    ]
    if not tensors:
        return True
    with torch.no_grad():
        norms = torch._foreach_norm(tensors, float("inf"))
        return bool(torch.isfinite(torch.stack([n.float() for n in norms])).all())
