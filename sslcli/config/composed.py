"""The composed config of each command as one typed object, and the schema that Hydra checks it against.

``read`` converts a plain dict, composed by Hydra or read from a checkpoint, to the object; ``to_plain`` converts back.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, make_dataclass
from typing import Any, TypeVar

from omegaconf import OmegaConf

from sslcli.config.choices import Choice, DatasetChoice, EncoderChoice, ProbeChoice
from sslcli.config.sections import CheckpointSection, DeviceSection, LogSection, TrainSection, key
from sslcli.config.upgrade import up_to_date
from sslcli.errors import UserError, suggest

K = TypeVar("K")


@dataclass
class TrainConfig:
    """Everything that ``ssl-train`` reads."""

    run_dir: str | None = key(None, "directory of the run's files; in a sweep, the sweep's folder")
    seed: int = key(0, "seed of all random numbers")
    resume: str = key("auto", "auto, never, or the path of a checkpoint or run to start from")
    plugins: list[str] = key([], "your own packages that config may name")
    preview: str | None = key(None, "write a picture of a batch of views and masks to this file, and exit")
    train: TrainSection = field(default_factory=TrainSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    log: LogSection = field(default_factory=LogSection)
    device: DeviceSection = field(default_factory=DeviceSection)
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    objective: Choice = field(default_factory=Choice)
    dataset: DatasetChoice = field(default_factory=DatasetChoice)
    views: Choice = field(default_factory=Choice)
    optimizer: Choice = field(default_factory=Choice)
    schedule: Choice = field(default_factory=Choice)
    probe: ProbeChoice = field(default_factory=ProbeChoice)
    logger: dict[str, Choice] = field(default_factory=dict)


@dataclass
class EvalConfig:
    """Everything that ``ssl-eval`` reads."""

    run: str | None = key(None, "the run directory or checkpoint to evaluate")
    seed: int | None = key(None, "seed of the probe; null takes the run's")
    weights: str = key("student", "student, or teacher: the momentum copy, where the objective has one")
    plugins: list[str] = key([], "your own packages that the run's config names")
    device: DeviceSection = field(default_factory=DeviceSection)
    dataset: DatasetChoice = field(default_factory=DatasetChoice)
    probe: Choice = field(default_factory=Choice)


@dataclass
class ExportConfig:
    """Everything that ``ssl-export`` reads."""

    run: str | None = key(None, "the run directory or checkpoint to export")
    output: str | None = key(None, "file to write; null writes into the run directory")
    weights: str = key("student", "student, or teacher: the momentum copy, where the objective has one")
    plugins: list[str] = key([], "your own packages that the run's config names")
    format: Choice = field(default_factory=Choice)
    dataset: DatasetChoice = field(default_factory=DatasetChoice)
    device: DeviceSection = field(default_factory=DeviceSection)


@dataclass
class ReportConfig:
    """Everything that ``ssl-report`` reads."""

    run: Any = key(None, "a run directory, or several [DIR1,DIR2] or a sweep's folder to compare")
    output: str | None = key(None, "file to write; null writes into the run directory or next to the runs")
    plugins: list[str] = key([], "your own packages that the run's config names")
    dataset: DatasetChoice = field(default_factory=DatasetChoice)
    device: DeviceSection = field(default_factory=DeviceSection)


CONFIGS: dict[str, type] = {"train": TrainConfig, "eval": EvalConfig, "export": ExportConfig, "report": ReportConfig}


def schema(kind: type) -> Any:
    """Return the schema for Hydra: fixed sections with typed keys, chosen parts with any keys.

    In commands that read a run, keys of ``dataset`` may stand without a dataset: they are words about the run's own.
    """
    hints = typing.get_type_hints(kind)
    rows: list[tuple[str, Any, Any]] = []
    for f in fields(kind):
        is_fixed = f.default is not MISSING or (is_dataclass(hints[f.name]) and not _is_choice(hints[f.name]))
        if is_fixed or hints[f.name] == list[str]:
            default = field(default=f.default, default_factory=f.default_factory)
            rows.append((f.name, hints[f.name], default))
        else:
            rows.append((f.name, dict[str, Any], field(default_factory=dict)))
    node = OmegaConf.structured(make_dataclass(kind.__name__, rows))
    if kind is not TrainConfig:
        OmegaConf.set_struct(node.dataset, False)
    return node


def resolved(config: Any, kind: type) -> dict[str, Any]:
    """Convert the composed config to a plain dict.

    Raises:
        UserError: a key is unknown; Hydra accepts unknown keys that are written with ``+``.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    _refuse_unknown(plain, kind, "")
    return up_to_date(plain)


def _refuse_unknown(node: Mapping[Any, Any], kind: type, prefix: str) -> None:
    hints = typing.get_type_hints(kind)
    for name, value in node.items():
        if name not in hints:
            raise UserError(f"Unknown key '{prefix}{name}'. {suggest(str(name), hints)}")
        inner = hints[name]
        if is_dataclass(inner) and not _is_choice(inner) and isinstance(value, Mapping):
            _refuse_unknown(value, typing.cast(type, inner), f"{prefix}{name}.")


def read(plain: Mapping[str, Any], kind: type[K]) -> K:
    """Convert a plain config to a typed one; missing keys get their defaults.

    Raises:
        UserError: a fixed section is not a mapping, or a field of a ``Choice`` has an invalid value.
    """
    hints = typing.get_type_hints(kind)
    return kind(**{name: _typed(name, value, hints[name]) for name, value in plain.items() if name in hints})


def _typed(name: str, value: Any, hint: Any) -> Any:
    if _is_choice(hint):
        return hint.read(value)
    if hint == dict[str, Choice]:
        return {key: Choice.read(node) for key, node in (value or {}).items()}
    if not is_dataclass(hint):
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"{name}: this section is needed; leave it as it is.")
    return typing.cast(type, hint)(**value)


def _is_choice(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Choice)


def to_plain(config: Any) -> dict[str, Any]:
    """Convert a typed config to a plain dict, the inverse of ``read``."""
    return {f.name: _plain(getattr(config, f.name)) for f in fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, Choice):
        return value.to_plain()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
