"""Detects the first step and term that became non-finite, without synchronising with the device in every step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sslcli.errors import UserError
from sslcli.run_dir import checkpoint


class NanGuard:
    """A record on the device of the first non-finite scalar; the host reads it at log lines and before saving.

    Args:
        device: the device of a step's scalars.
        run_dir: the run directory, whose newest checkpoint the error message names.
    """

    def __init__(self, device: torch.device, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._names: list[str] = []
        self._rates: dict[int, float] = {}  # learning rate of each step since the last check
        self._first = torch.full((2,), -1, dtype=torch.int64, device=device)  # step, index of the term

    def update(self, step: int, values: Mapping[str, Tensor], lr: float = 0.0) -> None:
        """Record ``step`` and the first of ``values`` (scalars) that is not finite, unless one is recorded already."""
        self._names = list(values)
        self._rates[step] = lr
        bad = ~torch.isfinite(torch.stack([value.detach().float() for value in values.values()]))
        index = bad.int().argmax()
        now = torch.stack([torch.full_like(index, step), index])
        self._first = torch.where((self._first[0] < 0) & bad.any(), now, self._first)

    def first(self) -> tuple[int, str] | None:
        """Return the step and the name of the first non-finite term, if any; synchronises with the device."""
        step, index = self._first.tolist()
        return None if step < 0 else (step, self._names[index])

    def check(self) -> None:
        """Raise an error if a term became non-finite.

        Raises:
            UserError: with the step, the term and the learning rate.
        """
        first = self.first()
        if first is not None:
            step, name = first
            kept = checkpoint.steps(self._run_dir)
            state = f"the last good checkpoint is {kept[0]}" if kept else "there is no checkpoint yet"
            raise UserError(
                f"The {name} became non-finite in step {step + 1} (learning rate {self._rates.get(step, 0.0):.3g}). "
                f"Nothing broken was saved; {state}. Lower optimizer.lr, set train.clip=1, or use train.precision=fp32."
            )
        self._rates.clear()

    def check_weights(self, modules: list[torch.nn.Module], step: int) -> None:
        """Raise an error if a term or a weight became non-finite.

        Raises:
            UserError: with the step.
        """
        self.check()
        if not all_finite(modules):
            raise UserError(
                f"The weights became non-finite in step {step}. Nothing broken was saved. "
                "Lower optimizer.lr or set train.clip=1."
            )


def all_finite(modules: list[torch.nn.Module]) -> bool:
    """Return whether every floating-point parameter and buffer is finite; synchronises with the device."""
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
