"""Communication between the processes of one run.

A run with a single process calls the same methods, which then communicate nothing.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from sslcli.distributed.meeting import in_thread, meet
from sslcli.distributed.start import LeftAlone, Start
from sslcli.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among ``size`` processes. All of them must call each method at the same point.

    ``in_group`` says that a single process is in a process group of its own and communicates with itself. ``control``
    is the group in which the processes agree between steps, without a limit of time.
    """

    rank: int = 0
    size: int = 1
    in_group: bool = False
    control: Any = field(default=None, compare=False)

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

    def highest(self, value: int) -> int:
        """Return the maximum of ``value`` over the processes."""
        if self._alone:
            return value
        shared = torch.tensor(value)
        self._wait(dist.all_reduce(shared, dist.ReduceOp.MAX, self.control, async_op=True))
        return int(shared)

    def from_first(self, value: T) -> T:
        """Return the value of rank 0 in every process."""
        if self._alone:
            return value
        data = bytearray(pickle.dumps(value)) if self.first else bytearray()
        size = torch.tensor(len(data))
        self._wait(dist.broadcast(size, 0, self.control, async_op=True))
        sent = torch.frombuffer(data, dtype=torch.uint8) if self.first else torch.empty(int(size), dtype=torch.uint8)
        self._wait(dist.broadcast(sent, 0, self.control, async_op=True))
        found: T = value if self.first else pickle.loads(sent.numpy().tobytes())  # of our own processes
        return found

    def _wait(self, work: Any) -> None:
        """Wait in Python, which hears signals, as long as it takes: rank 0 may be evaluating, scanning or saving."""
        pause = 0.0
        while not work.is_completed():
            time.sleep(pause)
            pause = min(pause + 1e-4, 0.02)
        work.wait()

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


@contextmanager
def joined(
    start: Start, device: torch.device, *, facts: Mapping[str, Any] | None = None, seconds: float = 120.0
) -> Iterator[Ranks]:
    """Connect the processes for the duration of a ``with`` block: gloo for CPU tensors, NCCL for CUDA tensors.

    Args:
        start: the place of this process among them.
        device: its device.
        facts: what must be equal in all processes.
        seconds: how long to wait for the others.

    Raises:
        UserError: they did not find each other, differ, or one of them has ended.
    """
    if start.size == 1:
        yield Ranks()
        return
    store = meet(start, facts or {}, seconds)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        control = in_thread(lambda: _group(start, backend, store), time.monotonic() + seconds)
        if control is None:
            raise UserError(
                f"rank {start.rank}: the processes cannot connect to each other. Set GLOO_SOCKET_IFNAME (and "
                "NCCL_SOCKET_IFNAME) to the network interface between the hosts."
            )
        yield Ranks(start.rank, start.size, control=control)
    except RuntimeError as error:
        if not any(words in str(error) for words in _PEER_LOST):
            raise
        raise LeftAlone from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


# What gloo and the store say when the process at the other end is gone.
_PEER_LOST = ("by peer", "Broken pipe", "Connection refused", "recvValue failed", "sendBytes failed")
_AS_LONG_AS_IT_TAKES = timedelta(days=365)


def _group(start: Start, backend: str, store: Any) -> Any:
    """Make the group of all processes for tensors; return another one for what they agree upon between steps."""
    dist.init_process_group(backend, store=store, rank=start.rank, world_size=start.size)
    return dist.new_group(backend="gloo", timeout=_AS_LONG_AS_IT_TAKES)
