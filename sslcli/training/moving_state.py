"""What a step moves besides the weights that the optimizer has: teachers, queues, centres, statistics of BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from sslcli.objectives.base import Objective


class MovingState:
    """A copy of that state from before a step, to be put back where the step is left out.

    It is every buffer that checkpoints hold, every parameter of the objective that has no gradient (its teachers), and
    every scalar of the objective, which may be clamped before a step. Tensors of one dtype are copied as one.

    Args:
        encoder: the encoder.
        objective: the objective.
    """

    def __init__(self, encoder: nn.Module, objective: Objective) -> None:
        self._modules: Sequence[nn.Module] = (encoder, objective)
        self._objective = objective
        self._groups: list[list[Tensor]] = []  # flat views of the tensors, by dtype
        self._before: list[Tensor] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Copy the state as it is now."""
        if not self._groups:  # in the first step, when the modules have reached their device and memory format
            found = sorted(self._tensors(), key=lambda tensor: str(tensor.dtype))
            self._groups = [[_flat(t) for t in same] for _, same in groupby(found, key=lambda tensor: tensor.dtype)]
        self._before = [torch.cat(group) for group in self._groups]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the state back as it was."""
        for group, before in zip(self._groups, self._before):
            _spread(before, group)

    @torch.no_grad()
    def restore_unless(self, finite: Tensor) -> None:
        """Put the state back where the scalar ``finite`` is False, without reading it on the host."""
        for group, before in zip(self._groups, self._before):
            _spread(torch.where(finite, torch.cat(group), before), group)

    def _tensors(self) -> Iterator[Tensor]:
        seen = set()
        for parameter in self._objective.parameters():
            if not parameter.requires_grad or parameter.dim() == 0:
                yield parameter
        for module in (inner for outer in self._modules for inner in outer.modules()):
            for name, buffer in module._buffers.items():
                kept = buffer is not None and name not in module._non_persistent_buffers_set
                if buffer is not None and kept and buffer.numel() and id(buffer) not in seen:
                    seen.add(id(buffer))
                    yield buffer


def _flat(tensor: Tensor) -> Tensor:
    """Return the elements of a dense tensor as a row, in the order of its memory."""
    return tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def _spread(row: Tensor, parts: list[Tensor]) -> None:
    torch._foreach_copy_(parts, list(row.split([part.numel() for part in parts])))
