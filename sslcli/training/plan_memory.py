"""What a few steps of a run cost, in seconds and in memory, and what follows for batches of another size."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sslcli.run_dir import checkpoint
from sslcli.training.trainer import Trainer

SHARE = 0.9  # of the free memory that a run may take: more of it would push out files, and allocators leave gaps
_WARM_UP = 2  # steps: the second is the first that holds the optimizer's state, gradients and activations together
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cost:
    """What a step costs.

    Args:
        batch: samples of a step in this process.
        pieces: the micro-batches that they are cut into.
        seconds: time of a step.
        peak: the largest number of bytes of memory in use, of the device or, on a CPU, of the whole process.
        steps: how many steps were timed.
        checkpoint: bytes of a checkpoint.
        computing: share of the time in which the training thread had a processor.
    """

    batch: int
    pieces: int
    seconds: float
    peak: int
    steps: int
    checkpoint: int
    computing: float = 1.0


@dataclass(frozen=True)
class Line:
    """Memory as a function of the samples that are in a micro-batch.

    Args:
        base: bytes without any sample: weights, gradients, the optimizer's state, libraries.
        each: bytes of a sample.
    """

    base: float
    each: float

    def at(self, samples: int) -> int:
        """Return the bytes of a micro-batch of this size."""
        return round(self.base + self.each * samples)

    def most(self, limit: int) -> int | None:
        """Return the largest micro-batch in a memory; None if that is not what limits it."""
        return max(0, int((limit - self.base) / self.each)) if self.each > 0 else None


def through(small: Cost, large: Cost) -> Line:
    """Return the line through two measurements; flat where the larger batch took no more, by noise."""
    each = max(0.0, (large.peak - small.peak) / (large.batch - small.batch))
    return Line(large.peak - each * large.batch, each)


def divisors(number: int) -> list[int]:
    """Return the divisors of a number in ascending order."""
    return [n for n in range(1, number + 1) if number % n == 0]


def fewest_pieces(own: int, line: Line, whole: int, limit: int) -> list[int]:
    """Return the numbers of micro-batches by which a process's part of the batch fits, fewest first.

    Args:
        own: samples of a step in this process.
        line: its memory.
        whole: bytes of a sample that stay while the batch is worked off in pieces: its data and its outputs.
        limit: the memory that it may take.
    """
    return [n for n in divisors(own) if line.at(own // n) + (whole * own if n > 1 else 0) <= limit]


class Peak:
    """The largest memory in use since this object was made."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with contextlib.suppress(OSError):  # another system: then the peak is that since the process started
                _RESET.write_text("5\n")

    def bytes(self) -> int:
        """Return it, in bytes."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        if self._device.type == "mps":
            return torch.mps.driver_allocated_memory()
        kilo = _status("VmHWM")
        unit = 1 if sys.platform == "darwin" else 1024
        return kilo * 1024 if kilo else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_limit(device: torch.device, free: int) -> int:
    """Return the bytes that a run in place of this process may take.

    Args:
        device: its device.
        free: bytes that this machine can still give to a process.
    """
    if device.type == "cuda":
        return int(SHARE * (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)))
    if device.type == "mps":
        return int(SHARE * torch.mps.recommended_max_memory())
    own = 1024 * (_status("VmRSS") or 0)
    try:
        most, used = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        files = int((_GROUP / "memory.stat").read_text().split("inactive_file ")[1].split()[0])  # is given back
        free = min(free, most - used + files)
    except (OSError, ValueError, IndexError):  # no limit, or another system
        pass
    return int(SHARE * (free + own))


def _status(name: str) -> int | None:
    """Return a line of the kernel's own account of this process, in KiB."""
    try:
        return int(_STATUS.read_text().split(f"{name}:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return None


def cost_of(trainer: Trainer, facts: Mapping[str, Any], *, seconds: float) -> Cost:
    """Make steps of a run, whose trainer cannot be used afterwards, and return what they cost.

    Args:
        trainer: at any step.
        facts: what a checkpoint has beside the trainer's state.
        seconds: for about how long steps are timed, after two that are not; at least one is.
    """
    trainer.encoder.train()
    trainer.objective.train()
    device = trainer.compute.device
    peak = Peak(device)
    batches = trainer.loader.batches(trainer.step)
    for _ in range(_WARM_UP):
        _wait(device)
        started = time.perf_counter()
        trainer.train_step(next(batches))
        _wait(device)
        last = time.perf_counter() - started
    at_once = max(1, round(seconds / 10 / max(last, 1e-6)))  # steps for whose end the host waits
    count, taken, started, computing = 0, 0.0, time.perf_counter(), time.thread_time()
    while not count or taken < seconds:
        for _ in range(at_once):
            trainer.train_step(next(batches))
        _wait(device)
        count, taken = count + at_once, time.perf_counter() - started
    computing = (time.thread_time() - computing) / taken
    most = peak.bytes()
    del batches  # ends the workers
    loader = trainer.loader
    size = checkpoint.size({**facts, **trainer.state_dict()})
    return Cost(loader.batch_size // loader.ranks.size, loader.accumulate, taken / count, most, count, size, computing)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
