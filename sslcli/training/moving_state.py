"""What a step moves besides the weights that the optimizer has: teachers, queues, centres, statistics of BatchNorm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sslcli.objectives.base import Objective

Groups = list[list[Tensor]]  # flat views of tensors, by dtype


class Kept:
    """A copy of tensors, to be put back."""

    @torch.no_grad()
    def __init__(self, groups: Groups) -> None:
        self._groups, self._before = groups, [torch.cat(group) for group in groups]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the tensors back as they were."""
        for group, before in zip(self._groups, self._before):
            _spread(before, group)

    @torch.no_grad()
    def restore_unless(self, finite: Tensor) -> None:
        """Put the tensors back where the scalar ``finite`` is False, without reading it on the host."""
        for group, before in zip(self._groups, self._before):
            _spread(torch.where(finite, torch.cat(group), before), group)


class MovingState:
    """What a step moves besides the weights and the optimizer.

    It is every buffer that checkpoints hold, every parameter of the objective that has no gradient (its teachers), and
    every scalar of the objective, which may be clamped before a step. Tensors of one dtype are copied as one.

    Args:
        encoder: the encoder.
        objective: the objective.
    """

    def __init__(self, encoder: nn.Module, objective: Objective) -> None:
        self._modules: Sequence[nn.Module] = (encoder, objective)
        self._objective = objective
        self._groups: Groups | None = None

    def keep(self) -> Kept:
        """Copy the state as it is now."""
        if self._groups is None:  # in the first step, when the modules have reached their device and memory format
            self._groups = flat_groups(self._tensors())
        return Kept(self._groups)

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


def optimizer_tensors(optimizer: Optimizer, device: torch.device) -> Iterator[Tensor]:
    """Yield the weights of an optimizer and the tensors of its state on ``device``."""
    for group in optimizer.param_groups:
        yield from group["params"]
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor) and value.device == device)


def flat_groups(tensors: Iterable[Tensor]) -> Groups:
    """Return the elements of dense tensors as rows, in the order of their memory, grouped by dtype."""
    found = sorted(tensors, key=lambda tensor: str(tensor.dtype))
    return [[_flat(tensor) for tensor in same] for _, same in groupby(found, key=lambda tensor: tensor.dtype)]


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def _spread(row: Tensor, parts: list[Tensor]) -> None:
    torch._foreach_copy_(parts, list(row.split([part.numel() for part in parts])))
