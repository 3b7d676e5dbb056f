"""The fixed sections of a run's config as dataclasses, and the checks that need no torch.

Parts that can be swapped (encoder, objective, dataset, ...) have no schema here: their constructors are it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from sslcli.errors import UserError, suggest


def _key(default: Any, text: str) -> Any:
    """A field with the line that ``--help`` prints."""
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class TrainSection:
    """How long, in which pieces and in which precision."""

    steps: int | None = _key(None, "optimizer steps; replaces the default length")
    epochs: float | None = _key(None, "passes over the data; replaces the default length")
    minutes: float | None = _key(None, "minutes of training time; replaces the default length")
    batch_size: int = _key(256, "samples a step, over all devices and micro-batches")
    accumulate: int = _key(1, "micro-batches a step; same gradient, less memory")
    precision: str = _key("auto", "auto, fp32, bf16 or fp16")
    compile: bool = _key(False, "torch.compile the encoder")
    deterministic: bool = _key(False, "only kernels that repeat bit for bit (a CPU always does)")
    clip: float | None = _key(None, "largest gradient norm; null does not clip")


@dataclass
class CheckpointSection:
    """When to save and what to keep."""

    every: int = _key(200, "steps between checkpoints; one at the end always")
    keep: int = _key(2, "newest checkpoints to keep")
    keep_every: int | None = _key(None, "keep those at multiples of this step too")
    keep_best: str | None = _key(None, "keep the best by this metric too: knn_top1, rankme or lidar; see probe.every")


@dataclass
class LogSection:
    """What is written while training."""

    every: int = _key(50, "steps between log lines")
    quality: str = _key("none", "none, basic (RankMe, alignment, uniformity, std) or full (LiDAR, alpha-ReQ too)")
    report: bool = _key(True, "write report.html at the end")


@dataclass
class DeviceSection:
    """Where to compute."""

    name: str = _key("auto", "auto, cpu, cuda, cuda:N or mps")
    threads: int | None = _key(None, "CPU threads; null takes all that this process may use")


S = TypeVar("S", bound="Aside")


@dataclass
class Aside:
    """Keys that stand in a part's section and that somebody else reads, not the part."""

    @classmethod
    def of(cls: type[S], node: Mapping[str, Any]) -> S:
        """Those of a part's section.

        Raises:
            UserError: a value that means nothing.
        """
        found = cls(**{f.name: node[f.name] for f in fields(cls) if f.name in node})
        found.check()
        return found

    @classmethod
    def without(cls, node: Mapping[str, Any]) -> dict[str, Any]:
        """The keys that the part itself reads."""
        aside = {f.name for f in fields(cls)}
        return {key: value for key, value in node.items() if key not in aside}

    def check(self) -> None:
        """Refuse a value that means nothing."""


@dataclass
class FeedSection(Aside):
    """Keys of ``dataset`` that say how it is fed; the loader reads them and not the dataset."""

    workers: int | None = None
    cache: str = "auto"
    max_bad: float | None = None

    def check(self) -> None:
        if self.workers is not None and (not isinstance(self.workers, int) or self.workers < 0):
            raise UserError(f"dataset.workers={self.workers!r} must be a whole number, 0 or more, or null.")
        known = ("auto", "device", "memory", "none")
        if self.cache not in known:
            raise UserError(f"dataset.cache: there is no '{self.cache}'. {suggest(str(self.cache), known)}")
        if self.max_bad is not None and not (isinstance(self.max_bad, (int, float)) and 0 <= self.max_bad <= 1):
            raise UserError(f"dataset.max_bad={self.max_bad!r} must be a share from 0 to 1, or null.")


@dataclass
class StartSection(Aside):
    """Keys of ``encoder`` that say what it starts from; a run that goes on does not need it any more."""

    weights: str | None = None

    def check(self) -> None:
        if self.weights is not None and not (isinstance(self.weights, str) and self.weights):
            raise UserError(f"encoder.weights={self.weights!r} must be a path, timm:NAME, or null.")


@dataclass
class WatchSection(Aside):
    """Keys of ``probe`` that say how a run is watched while it trains, whichever probe stands at its end."""

    every: int | None = None
    share: float | None = 0.1
    patience: int | None = None

    def check(self) -> None:
        for name in ("every", "patience"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UserError(f"probe.{name}={value!r} must be a whole number, 1 or more, or null.")
        if self.share is not None and not (isinstance(self.share, (int, float)) and 0 < self.share <= 1):
            raise UserError(f"probe.share={self.share!r} must be a share of the training time, above 0, or null.")


@dataclass
class TrainConfig:
    """Everything that ``ssl-train`` reads."""

    run_dir: str | None = _key(None, "where the run lives; in a sweep, the sweep's folder")
    seed: int = _key(0, "seed of everything random")
    resume: str = _key("auto", "auto, never, or the path of a checkpoint or run to start from")
    plugins: list[str] = _key([], "your own packages that config may name")
    preview: str | None = _key(None, "write a picture of a batch of views and masks to this file, and exit")
    train: TrainSection = field(default_factory=TrainSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    log: LogSection = field(default_factory=LogSection)
    device: DeviceSection = field(default_factory=DeviceSection)
    encoder: dict[str, Any] = field(default_factory=dict)
    objective: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    probe: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvalConfig:
    """Everything that ``ssl-eval`` reads."""

    run: str | None = _key(None, "the run directory or checkpoint to evaluate")
    seed: int | None = _key(None, "of what a probe draws; null takes the run's")
    plugins: list[str] = _key([], "your own packages that the run's config names")
    device: DeviceSection = field(default_factory=DeviceSection)
    dataset: dict[str, Any] = field(default_factory=dict)
    probe: dict[str, Any] = field(default_factory=dict)


@dataclass
class ExportConfig:
    """Everything that ``ssl-export`` reads."""

    run: str | None = _key(None, "the run directory or checkpoint to export")
    output: str | None = _key(None, "file to write; null puts it into the run directory")
    plugins: list[str] = _key([], "your own packages that the run's config names")
    format: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    device: DeviceSection = field(default_factory=DeviceSection)


@dataclass
class ReportConfig:
    """Everything that ``ssl-report`` reads."""

    run: Any = _key(None, "a run directory, or several [DIR1,DIR2] or a sweep's folder to compare")
    output: str | None = _key(None, "file to write; null puts it into the run directory or beside the runs")
    plugins: list[str] = _key([], "your own packages that the run's config names")
    device: DeviceSection = field(default_factory=DeviceSection)


SCHEMAS: dict[str, type] = {"train": TrainConfig, "eval": EvalConfig, "export": ExportConfig, "report": ReportConfig}

_LENGTH = ("steps", "epochs", "minutes")
# What a resumed run may change: it does not touch the mathematics.
_CHANGEABLE = ("run_dir", "resume", "plugins", "preview", "log", "logger", "checkpoint", "probe", "device") + tuple(
    f"dataset.{f.name}" for f in fields(FeedSection)
)


def to_plain(config: Any, schema: type) -> dict[str, Any]:
    """The composed config as a resolved plain dict, refusing keys that slipped past the schema with ``+``."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    _refuse_unknown(plain, schema, "")
    return {str(key): value for key, value in plain.items()}


def _refuse_unknown(node: Mapping[Any, Any], schema: type, prefix: str) -> None:
    known = {f.name: f for f in fields(schema)}
    for key, value in node.items():
        if key not in known:
            raise UserError(f"Unknown key '{prefix}{key}'. {suggest(str(key), known)}")
        inner = known[key].default_factory
        if isinstance(inner, type) and hasattr(inner, "__dataclass_fields__") and isinstance(value, Mapping):
            _refuse_unknown(value, inner, f"{prefix}{key}.")


def section(plain: Mapping[str, Any], name: str, schema: type) -> Any:
    """One fixed section as its dataclass."""
    return schema(**plain[name])


def settle_length(plain: dict[str, Any], overrides: list[str]) -> None:
    """Leave exactly one of train.steps, epochs and minutes: the one that the user gave, else the default's.

    Args:
        plain: the config, changed in place.
        overrides: the command line's overrides.
    """
    train = plain.get("train")
    if not isinstance(train, dict) or not set(_LENGTH) <= set(train):
        raise UserError("train: this section is needed with all its keys; leave it as it is.")
    given = [key for key in _LENGTH if any(o.lstrip("+").startswith(f"train.{key}=") for o in overrides)]
    given = [key for key in given if train[key] is not None]
    if len(given) > 1:
        raise UserError(f"train.{given[0]} and train.{given[1]} are both given. Choose one length for the run.")
    chosen = given or [key for key in _LENGTH if train[key] is not None]
    if len(chosen) != 1:
        raise UserError("train: set exactly one of steps, epochs and minutes, and the others to null.")
    if not 0 < train[chosen[0]] < 1e12:
        raise UserError(f"train.{chosen[0]}={train[chosen[0]]} must be positive and finite.")
    for key in _LENGTH:
        if key != chosen[0]:
            train[key] = None


def check_values(plain: Mapping[str, Any]) -> None:
    """The fixed sections' values.

    Raises:
        UserError: the first that is out of range, with what would do.
    """
    for name in ("train", "checkpoint", "log", "device", "probe"):
        if not isinstance(plain.get(name), Mapping):
            raise UserError(f"{name}: this section is needed; leave it as it is.")
    train, save = plain["train"], plain["checkpoint"]
    if train["batch_size"] < 1:
        raise UserError(f"train.batch_size={train['batch_size']} must be at least 1.")
    if train["accumulate"] < 1 or train["batch_size"] % train["accumulate"]:
        raise UserError(
            f"train.accumulate={train['accumulate']} does not divide train.batch_size={train['batch_size']}. "
            "Give a divisor."
        )
    for path, value, known in (
        ("train.precision", train["precision"], ("auto", "fp32", "bf16", "fp16")),
        ("log.quality", plain["log"]["quality"], ("none", "basic", "full")),
    ):
        if value not in known:
            raise UserError(f"{path}: there is no '{value}'. {suggest(value, known)}")
    if train["clip"] is not None and train["clip"] <= 0:
        raise UserError(f"train.clip={train['clip']} must be positive, or null for no clipping.")
    for path, value in (
        ("checkpoint.every", save["every"]),
        ("checkpoint.keep", save["keep"]),
        ("checkpoint.keep_every", save["keep_every"]),
        ("log.every", plain["log"]["every"]),
        ("device.threads", plain["device"]["threads"]),
    ):
        if value is not None and value < 1:
            raise UserError(f"{path}={value} must be at least 1.")
    watch = WatchSection.of(plain["probe"])
    if save["keep_best"] is not None and watch.every is None:
        raise UserError(f"checkpoint.keep_best={save['keep_best']} is measured while training: set probe.every=STEPS.")
    if watch.patience is not None and save["keep_best"] is None:
        raise UserError(f"probe.patience={watch.patience} needs a metric: set checkpoint.keep_best, e.g. to knn_top1.")


def run_name(plain: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """``<objective>-<encoder>-<dataset>-<8 hex>``: the same training config always finds the same run."""
    identity = {k: v for k, v in flatten(plain).items() if not _is_changeable(k)}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:8]
    words = (str(choices.get(group, "custom")).replace("/", "_") for group in ("objective", "encoder", "dataset"))
    return "-".join((*words, digest))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What changed between a checkpoint's config and this one: (refused, allowed), each ``key: old -> new``.

    The run's length is left to the caller, who knows how long it was.
    """
    before, after = flatten(old), flatten(new)
    refused: list[str] = []
    allowed: list[str] = []
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key) and key not in ("run_dir", "resume", "plugins", "preview"):
            text = f"{key}: {before.get(key)} -> {after.get(key)}"
            is_length = key in tuple(f"train.{name}" for name in _LENGTH)
            (allowed if is_length or _is_changeable(key) else refused).append(text)
    return refused, allowed


def _is_changeable(key: str) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in _CHANGEABLE)


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """``{a: {b: 1}}`` as ``{"a.b": 1}``: the keys as they are written on the command line."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def expand(path: str) -> Path:
    """A user's path with ``~`` understood."""
    return Path(path).expanduser()
