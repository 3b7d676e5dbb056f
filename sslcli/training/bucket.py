"""Gradients of several parameters in one tensor, which is sent as one message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

_ALIGNMENT = 128  # bytes, so that a gradient in a bucket is read as fast, and in the same order, as one of its own


class Bucket:
    """One tensor that holds the gradients of ``parameters``, each in the memory format of its parameter.

    Args:
        parameters: of one dtype and device.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        first, step = parameters[0], max(1, _ALIGNMENT // parameters[0].element_size())
        starts, end = [], 0
        for parameter in parameters:
            starts.append(end)
            end += -(-parameter.numel() // step) * step
        self.flat = torch.zeros(end, dtype=first.dtype, device=first.device)
        self.views = {
            parameter: self.flat.as_strided(parameter.shape, torch.empty_like(parameter, device="meta").stride(), start)
            for parameter, start in zip(parameters, starts)
        }
        self.missing: set[nn.Parameter] = set()  # whose gradients of this step are not in the tensor yet
        self.is_trained = False  # whether any of the parameters is, in this step

    def begin(self) -> None:
        """Begin to collect the gradients of a step; a bucket of frozen parameters has nothing to collect."""
        self.is_trained = any(parameter.requires_grad for parameter in self.parameters)
        self.missing = set(self.parameters) if self.is_trained else set()

    def take(self, parameter: nn.Parameter) -> None:
        """Move a gradient, zero if there is none, into the tensor; ``grad`` becomes a view of it."""
        view = self.views[parameter]
        if parameter.grad is None:
            view.zero_()
        else:
            view.copy_(parameter.grad)
            parameter.grad = view
        self.missing.discard(parameter)

    def take_rest(self) -> None:
        """Take the gradients that are missing."""
        for parameter in tuple(self.missing):
            self.take(parameter)


def split(parameters: Iterable[nn.Parameter], size: int) -> list[list[nn.Parameter]]:
    """Cut a sequence of parameters into groups of one dtype and device, each of at most ``size`` bytes if it can be."""
    groups: list[list[nn.Parameter]] = []
    room = 0
    for parameter in parameters:
        last = groups[-1][0] if groups else None
        same = last is not None and (last.dtype, last.device) == (parameter.dtype, parameter.device)
        if not same or parameter.nbytes > room:
            groups.append([])
            room = size
        groups[-1].append(parameter)
        room -= parameter.nbytes
    return groups
