"""The fixed sections of a config: every key with its type, its default and the line that ``--help`` prints.

Parts that can be swapped (encoder, objective, dataset, ...) have no section here: see ``choices``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def key(default: Any, text: str) -> Any:
    """A field with the line that ``--help`` prints."""
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class TrainSection:
    """How long, in which pieces and in which precision."""

    steps: int | None = key(None, "optimizer steps; replaces the default length")
    epochs: float | None = key(None, "passes over the data; replaces the default length")
    minutes: float | None = key(None, "minutes of training time; replaces the default length")
    batch_size: int = key(256, "samples a step, over all devices and micro-batches")
    accumulate: int = key(1, "micro-batches a step; same gradient, less memory")
    precision: str = key("auto", "auto, fp32, bf16 or fp16")
    compile: bool = key(False, "torch.compile the encoder")
    deterministic: bool = key(False, "only kernels that repeat bit for bit (a CPU always does)")
    clip: float | None = key(None, "largest gradient norm; null does not clip")


@dataclass
class CheckpointSection:
    """When to save and what to keep."""

    every: int = key(200, "steps between checkpoints; one at the end always")
    keep: int = key(2, "newest checkpoints to keep")
    keep_every: int | None = key(None, "keep those at multiples of this step too")
    keep_best: str | None = key(None, "keep the best by this metric too: knn_top1, rankme or lidar; see probe.every")


@dataclass
class LogSection:
    """What is written while training."""

    every: int = key(50, "steps between log lines")
    quality: str = key("none", "none, basic (RankMe, alignment, uniformity, std) or full (LiDAR, alpha-ReQ too)")
    report: bool = key(True, "write report.html at the end")


@dataclass
class DeviceSection:
    """Where to compute."""

    name: str = key("auto", "auto, cpu, cuda, cuda:N or mps")
    threads: int | None = key(None, "CPU threads; null takes all that this process may use")
