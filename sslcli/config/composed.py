"""The composed config of each command as one typed object, and the schema that Hydra checks it against.

``read`` converts a plain dict, composed by Hydra or read from a checkpoint, to the object; ``to_plain`` converts back.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, make_dataclass
from typing import Any, TypeVar

from omegaconf import OmegaConf

from sslcli.config.choices import Choice, DatasetChoice, EncoderChoice, OptimizerChoice, ProbeChoice
from sslcli.config.ranges import Count
from sslcli.config.secrets import hidden
from sslcli.config.sections import CheckpointSection, DeviceSection, LogSection, TrainDeviceSection, TrainSection, key
from sslcli.config.upgrade import FORMAT, up_to_date
from sslcli.config.value_types import fits, type_in_words
from sslcli.errors import UserError, suggest

K = TypeVar("K")


@dataclass
class TrainConfig:
    """Everything that ``ssl-train`` reads."""

    run_dir: str | None = key(None, "directory of the run's files; in a sweep, the sweep's folder")
    seed: int = key(0, "seed of all random numbers")
    resume: str = key("auto", "auto, never, a run to go on with, or, with a run_dir, where to start from")
    plugins: list[str] = key([], "your own packages that config may name")
    preview: str | None = key(None, "write a picture of a batch of views and masks to this file, and exit")
    plan: bool = key(False, "print what this run would cost, measured in a few steps on this device, and exit")
    replay: Count | None = key(None, "run this step of run_dir again, and print what in it is not finite")
    train: TrainSection = field(default_factory=TrainSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    log: LogSection = field(default_factory=LogSection)
    device: TrainDeviceSection = field(default_factory=TrainDeviceSection)
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    objective: Choice = field(default_factory=Choice)
    dataset: DatasetChoice = field(default_factory=DatasetChoice)
    views: Choice = field(default_factory=Choice)
    optimizer: OptimizerChoice = field(default_factory=OptimizerChoice)
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
    golden: bool = key(True, "three held-out samples and their features beside the file, to compare it elsewhere")
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


OF_TRAINING = ("encoder", "objective", "views", "probe")  # parts that an option of dataset may choose with the data
CONFIGS: dict[str, type] = {"train": TrainConfig, "eval": EvalConfig, "export": ExportConfig, "report": ReportConfig}


@functools.cache
def unread_parts(kind: type) -> frozenset[str]:
    """Return the parts that only training has, which the command of a config does not read."""
    return frozenset(OF_TRAINING) - set(typing.get_type_hints(kind))


def leaves(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the keys of the sections of a config, dotted, each with its dataclass field; not those of nodes."""
    for f in fields(kind):
        inner = f.default_factory
        if isinstance(inner, type) and is_dataclass(inner):
            yield from leaves(inner, f"{prefix}{f.name}.")
        elif f.name != "node":
            yield f"{prefix}{f.name}", f


@functools.cache
def schema(kind: type) -> Any:
    """Return the schema for Hydra, which copies it: fixed sections with typed keys, chosen parts with any keys.

    In commands that read a run, keys of ``dataset`` may stand without a dataset: they are words about the run's own;
    and an option of ``dataset`` may choose parts that only training has, which nothing reads.
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
    rows += [(name, dict[str, Any], field(default_factory=dict)) for name in OF_TRAINING if name in unread_parts(kind)]
    node = OmegaConf.structured(make_dataclass(kind.__name__, rows))
    if kind is not TrainConfig:
        OmegaConf.set_struct(node.dataset, False)
    return node


def restored(plain: Any, written_in: int = FORMAT) -> TrainConfig:
    """Convert the config in a checkpoint or an export to the typed config of this version.

    Args:
        plain: the config as it was written, by this version or an older one.
        written_in: the checkpoint format of that version.

    Raises:
        UserError: it is no config of this tool.
    """
    if not isinstance(plain, Mapping):
        raise UserError("config: it is not a mapping.")
    config = up_to_date(hidden(plain), written_in)
    _refuse_unknown(config, TrainConfig, "")
    made = read(config, TrainConfig)
    for name, part in vars(made).items():
        if isinstance(part, Choice) and not fits(part.node, dict[str, Any]):
            raise UserError(f"config.{name}: it is not a section with a '_target_'.")
    return made


def resolved(config: Any, kind: type) -> dict[str, Any]:
    """Convert the composed config to a plain dict.

    Raises:
        UserError: a key is unknown; Hydra accepts unknown keys that are written with ``+``.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    plain = {name: value for name, value in plain.items() if name not in unread_parts(kind)}
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


def read(plain: Any, kind: type[K], where: str = "") -> K:
    """Convert plain values, of a config or of a file, to a dataclass, whose annotations are the schema.

    Args:
        plain: a mapping. Keys that the dataclass does not have are left out, and missing ones get their defaults.
        kind: the dataclass; its fields may be dataclasses, too.
        where: the beginning of the names of keys in messages, such as ``train.``.

    Raises:
        UserError: a value does not have the type of its field, a key without a default is missing, or the dataclass
            refuses its values by ValueError.
    """
    if not isinstance(plain, Mapping):
        raise UserError(f"{where.removesuffix('.') or 'all'}: this section is needed; leave it as it is.")
    hints = typing.get_type_hints(kind)
    needed = [f.name for f in fields(typing.cast(Any, kind)) if f.default is MISSING and f.default_factory is MISSING]
    for name in needed:
        if name not in plain:
            raise UserError(f"{where}{name} is missing.")
    values = {name: _typed(f"{where}{name}", value, hints[name]) for name, value in plain.items() if name in hints}
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"{where}{error}") from error


def _typed(name: str, value: Any, hint: Any) -> Any:
    if _is_choice(hint):
        return hint.read(value)
    if hint == dict[str, Choice] and isinstance(value or {}, Mapping):
        return {key: Choice.read(node) for key, node in (value or {}).items()}
    if is_dataclass(hint) and not isinstance(value, typing.cast(type, hint)):
        return read(value, typing.cast(Any, hint), f"{name}.")
    if not fits(value, hint):
        raise UserError(f"{name}: {str(value)[:80]!r} is not {type_in_words(hint)}.")
    return value


def _is_choice(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Choice)


def to_plain(config: Any) -> dict[str, Any]:
    """Convert a typed config to a plain dict, the inverse of ``read``, to be written, shown, hashed or compared.

    The secrets in its URLs are hidden.
    """
    return {f.name: hidden(_plain(getattr(config, f.name))) for f in fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, Choice):
        return value.to_plain()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
