"""Stateless random numbers: each is a hash of (seed, step, name, position in the global batch).

The state of a generator would have to be saved, restored and split over micro-batches and ranks. A hash has no
state: any split of the batch into micro-batches and ranks, and any resumed run, draws the same numbers.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
    """Apply the finaliser of SplitMix64 (Steele, Lea and Flood 2014), a bijective hash of 64-bit words."""
    with np.errstate(over="ignore"):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fold(*words: int | str) -> int:
    """Hash several words into one 64-bit number; every seed in a run is computed by this function."""
    state = np.zeros((), np.uint64)
    for word in words:
        value = zlib.crc32(word.encode()) if isinstance(word, str) else word % 2**64
        state = mix(state ^ mix(np.array(value, np.uint64)))
    return int(state)


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's own generators, which dropout on ``device`` draws from.

    On a CPU ``torch.manual_seed`` also notes the seed for GPUs, with three printed stacks: up to a millisecond.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed % 2**63)
    else:
        torch.manual_seed(seed % 2**63)


def to_device(host: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to ``device`` without making the host wait (from pinned memory for a GPU)."""
    pinned = host.pin_memory() if device.type == "cuda" and not host.is_cuda else host
    return pinned.to(device, non_blocking=True)


@dataclass(frozen=True)
class Randomness:
    """The random numbers of one step for the samples at ``positions`` of the global batch."""

    seed: int
    step: int
    positions: np.ndarray  # (B,) int64, position of each sample in the global batch
    device: torch.device
    prefix: str = ""  # of the names of all streams; each pipeline of several columns has one of its own

    def named(self, name: str) -> Randomness:
        """Return the randomness of the same step and samples whose streams are independent of all others."""
        return replace(self, prefix=f"{self.prefix}{name}/")

    def numbers(self, name: str, *shape: int) -> np.ndarray:
        """Draw (B, *shape) float32 uniforms in [0, 1) on the host; different names give independent streams."""
        if torch.compiler.is_compiling():  # numbers of the host's are no part of a graph
            return torch.compiler.disable(self._drawn)(name, *shape)
        return self._drawn(name, *shape)

    def _drawn(self, name: str, *shape: int) -> np.ndarray:
        count = math.prod(shape)
        stream = np.uint64(fold(self.seed, self.step, self.prefix + name))
        rows = mix(self.positions.astype(np.uint64) ^ stream)[:, None]
        words = mix(rows ^ mix(np.arange(count, dtype=np.uint64)))
        values = (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return values.reshape(len(self.positions), *shape)

    def uniform(self, name: str, *shape: int) -> Tensor:
        """Draw the same numbers as ``numbers`` and copy them to the device."""
        return to_device(torch.from_numpy(self.numbers(name, *shape)), self.device)

    def part(self, start: int, stop: int) -> Randomness:
        """Return the randomness of the same step for the samples ``start`` to ``stop`` only."""
        return replace(self, positions=self.positions[start:stop])
