"""The fixed sections of a config: each key with its type, its default and its line in ``--help``.

Parts that the user chooses (encoder, objective, dataset, ...) have no section here: see ``choices``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sslcli.config.ranges import Count, Positive


def key(default: Any, text: str) -> Any:
    """Declare a dataclass field with its line in ``--help``."""
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class TrainSection:
    """The length of training, the batch size and the precision."""

    steps: Count | None = key(None, "optimizer steps; replaces the default length")
    epochs: Positive | None = key(None, "passes over the data; replaces the default length")
    minutes: Positive | None = key(None, "minutes of training time; replaces the default length")
    batch_size: Count = key(256, "samples a step, summed over all devices and micro-batches")
    accumulate: Count | str = key(1, "micro-batches a step; same gradient, less memory; auto: the fewest that fit")
    precision: str = key("auto", "auto, fp32, bf16 or fp16")
    compile: bool = key(False, "torch.compile the encoder")
    deterministic: bool = key(False, "use only deterministic kernels (on a CPU they always are)")
    clip: Positive | None = key(None, "maximum gradient norm; null does not clip")
    sync_norm: bool = key(False, "BatchNorm normalises by the batch of all processes, not by each one's part")
    recompute: str = key("none", "blocks: compute their activations again in the backward pass; same bits, less memory")
    stop_on: str | None = key(None, "collapse: end a run whose features collapsed at two log lines in a row")

    @property
    def num_micro(self) -> int:
        """The number in ``accumulate``, which a command that reads it has settled where it was ``auto``."""
        assert not isinstance(self.accumulate, str)
        return self.accumulate


@dataclass
class CheckpointSection:
    """When to write checkpoints and which to keep."""

    every: Count = key(200, "steps between checkpoints; the last step always has one")
    keep: Count = key(2, "number of newest checkpoints to keep")
    keep_every: Count | None = key(None, "also keep checkpoints at multiples of this many steps")
    keep_best: str | None = key(
        None, "also keep the best by this metric of probe.every, such as online_knn_top1 or rankme"
    )


@dataclass
class LogSection:
    """What is logged during training."""

    every: Count = key(50, "steps between log lines")
    quality: str = key("none", "none, basic (RankMe, alignment, uniformity, std) or full (LiDAR, alpha-ReQ too)")
    report: bool = key(True, "write report.html at the end")


@dataclass
class DeviceSection:
    """The device and the number of CPU threads."""

    name: str = key("auto", "auto, cpu, cuda, cuda:N or mps")
    threads: Count | None = key(None, "CPU threads; null uses all CPUs that this process may use")


@dataclass
class TrainDeviceSection(DeviceSection):
    """The device, and the processes that share a run."""

    num: Count | str | None = key(None, "processes that ssl-train starts on this host, or all: one for each GPU")
    strategy: str = key("auto", "how processes share the model: auto, or ddp, by which each has all of it")
    meet_s: Positive = key(120.0, "seconds to wait for the other processes of the run")
