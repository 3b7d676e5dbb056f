"""A CUDA device that is only pretended: torch's fake tensors have shapes, dtypes and devices, and no numbers.

By themselves fake tensors refuse what a GPU could not do (an operation of tensors on two devices) and what would make
the host wait for a number of the GPU's (``.item()``, ``bool()``, a shape that depends on values). They allow all copies
between the devices, so ``PretendCuda`` refuses those that wait.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sslcli.views.constants import constant

M = TypeVar("M", bound=nn.Module)
CUDA = torch.device("cuda", 0)
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Waits(Exception):
    """A copy between the devices for which the host would have to wait."""


class PretendCuda(TorchDispatchMode):
    """Refuses copies to the host, and notes those to the device that block or do not come from pinned memory.

    The latter are allowed where a constant is made once, in the first step. Pinned memory needs a driver, so
    ``pinned`` stands in for ``Tensor.pin_memory``: it only remembers what was pinned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocking: list[str] = []
        self._fake = FakeTensorMode()
        self._pinned: dict[int, torch.UntypedStorage] = {}  # kept, so that no other storage gets the same address

    def pinned(self, host: Tensor) -> Tensor:
        assert host.device.type == "cpu", "only memory of the host can be pinned"
        memory = host.clone()
        self._pinned[memory.untyped_storage()._cdata] = memory.untyped_storage()
        return memory

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in COPIES:
            in_place = func is torch.ops.aten.copy_.default
            non_blocking = args[2] if len(args) > 2 else (kwargs or {}).get("non_blocking", False)
            self._check(args[1] if in_place else args[0], result, non_blocking)
        return result

    def _check(self, source: Tensor, result: Tensor, non_blocking: bool) -> None:
        if source.device == result.device:
            return
        if result.device.type == "cpu":
            raise Waits(f"{tuple(source.shape)} is copied to the host")
        if not non_blocking or source.untyped_storage()._cdata not in self._pinned:
            self.blocking.append(f"{tuple(source.shape)} is copied to the device, and the host waits")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Inside, all new tensors are fake and copies between the devices are watched."""
        self.blocking.clear()
        with mock.patch.object(Tensor, "pin_memory", lambda host: self.pinned(host)), self._fake, self:
            yield


@contextmanager
def pretend_cuda() -> Iterator[PretendCuda]:
    """The device; no constant that was made on it is there afterwards."""
    constant.cache_clear()
    yield PretendCuda()
    constant.cache_clear()


def autocast() -> torch.autocast:
    """Mixed precision as on a GPU; torch switches it off where it sees none."""
    with mock.patch.multiple(torch.cuda, is_available=lambda: True, is_bf16_supported=lambda: True):
        return torch.autocast("cuda", torch.bfloat16)


def on_cuda(*modules: M) -> list[M]:
    """Copies of modules that share parameters, with fake parameters and buffers; only where a device is ``watched``."""
    fakes: dict[int, Tensor] = {}
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
            fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA, memory_format=layout)
            fakes[id(tensor)] = nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake
    return copy.deepcopy(list(modules), fakes)
