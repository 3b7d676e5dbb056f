"""Communication between the processes of one run, as torchrun starts them.

A run with a single process calls the same methods, which then communicate nothing.
"""

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
    """The rank of this process among ``size`` processes. All of them must call each method at the same point.

    ``in_group`` says that a single process is in a process group of its own and communicates with itself.
    """

    rank: int = 0
    size: int = 1
    in_group: bool = False

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the process that writes files and prints."""
        return self.rank == 0

    @property
    def _alone(self) -> bool:
        return self.size == 1 and not self.in_group

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows (B, ...) of all processes in the order of their ranks, (size * B, ...), without gradients."""
        if self._alone:
            return rows.detach()
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.detach().contiguous())
        return torch.cat(parts)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes, with a single all-reduce."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self._alone or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(part.view(gradient.shape))

    def highest(self, value: int) -> int:
        """Return the maximum of ``value`` over the processes."""
        if self._alone:
            return value
        shared = torch.tensor(value)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def from_first(self, value: T) -> T:
        """Return the value of rank 0 in every process."""
        if self._alone:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box)
        found: T = box[0]
        return found

    def by_first(self, act: Callable[[], T]) -> T:
        """Call ``act`` in rank 0 only and return its result in every process; its UserError is raised in all."""
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
    """Read rank and size from torchrun's environment variables, without connecting the processes."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Ranks()
    return Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Connect the processes for the duration of a ``with`` block: gloo for CPU tensors, NCCL for CUDA tensors.

    Raises:
        UserError: MASTER_ADDR is not set, or another process of the run has ended.
    """
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
        raise UserError("Another process of this run has ended; its own message says why.") from error
    finally:
        dist.destroy_process_group()
