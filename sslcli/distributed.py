"""The processes of one run, as torchrun starts them: gather rows, sum gradients, agree. One alone pays nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sslcli.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's number among ``size``; every method is called by all of them at the same point."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def gather(self, rows: Tensor) -> Tensor:
        """(size * B, ...) the rows (B, ...) of all processes in their order, without gradients."""
        if self.size == 1:
            return rows.detach()
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.detach().contiguous())
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view(gradient.shape))

    def highest(self, value: int) -> int:
        """The largest value that any process holds."""
        if self.size == 1:
            return value
        shared = torch.tensor(value)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def from_first(self, value: T) -> T:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box)
        found: T = box[0]
        return found

    def by_first(self, act: Callable[[], T]) -> T:
        """What ``act`` returns in the first process, which alone calls it; its UserError is raised in all."""
        outcome: T | UserError | None = None
        if self.first:
            try:
                outcome = act()
            except UserError as error:
                outcome = error
        outcome = self.from_first(outcome)
        if isinstance(outcome, UserError):
            raise outcome
        return cast(T, outcome)


def environment() -> Ranks:
    """What torchrun's variables say, before any connection is made."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Ranks()
    return Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Connect the processes while in this block; CPU tensors travel by gloo, a GPU's by NCCL."""
    ranks = environment()
    if ranks.size == 1:
        yield ranks
        return
    if "MASTER_ADDR" not in os.environ:
        raise UserError(f"WORLD_SIZE={ranks.size} is set and MASTER_ADDR is not. Start with torchrun, or unset both.")
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield ranks
    except RuntimeError as error:
        if "by peer" not in str(error):
            raise
        raise UserError("Another process of this run has ended; what it said is the reason.") from error
    finally:
        dist.destroy_process_group()
