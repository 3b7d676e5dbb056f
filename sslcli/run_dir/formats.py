"""The content of checkpoints and exports, which is checked when they are read, and that of old formats.

Format 4 has further keys in its config. Format 3 stores the kind and the dtype of each column of the dataset, and a
digest of the data's content, or of names, sizes and drawn pieces; older ones stored the number of samples or a digest
of names. Format 2 stores the state of each hook of the training loop under the hook's name, and name and digest of
each file that was fitted on the data. Format 1 stored metric sums (``meter``) and online evaluation (``watch``) at the
top level.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from sslcli.config.composed import TrainConfig, read, restored
from sslcli.config.secrets import hidden
from sslcli.types import Field

_MOST_THREADS = 4096  # more than any machine has; torch creates them at once


@dataclass(kw_only=True)
class Trained:
    """What an export has: the encoder, and what is needed to build it."""

    config: TrainConfig
    spec: dict[str, dict[str, Any]]  # the columns of the dataset, as ``Spec.to_plain`` gives them
    step: int
    encoder: dict[str, Tensor]
    weights: str = "student"

    def __post_init__(self) -> None:
        if self.step < 0:
            raise ValueError(f"step={self.step} is below 0")
        for name, column in self.spec.items():
            known = {**column, "dtype": getattr(torch, str(column.get("dtype")), None)}
            if unknown := known.keys() - {f.name for f in fields(Field)}:
                raise ValueError(f"spec.{name}: a column has no {sorted(map(str, unknown))[0]!r}")
            read(known, Field, f"spec.{name}.")


@dataclass(kw_only=True)
class Environment:
    """On what a run was trained."""

    torch: str
    python: str
    device: str
    precision: str
    threads: int
    ranks: int
    command: str
    commit: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= _MOST_THREADS:
            raise ValueError(f"threads={self.threads} is not from 1 to {_MOST_THREADS}")


@dataclass(kw_only=True)
class Checkpoint(Trained):
    """What a checkpoint has: everything that training changes, and what it needs to go on."""

    format: int
    version: str
    seconds: float  # of training
    length: dict[str, float | None]  # planned: steps, minutes
    environment: Environment
    data: str  # a digest
    initial_weights: str | None = None  # a digest of what encoder.weights named
    objective: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    hooks: dict[str, dict[str, Any]]
    files: dict[str, str] = field(default_factory=dict)  # digests of what was fitted on the data, by file
    classes: dict[str, int] = field(default_factory=dict)  # numbers of training samples

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.seconds < math.inf:
            raise ValueError(f"seconds={self.seconds} is not a time")
        if self.length.keys() != {"steps", "minutes"}:
            raise ValueError("length: it has not the keys steps and minutes")


def upgrade(state: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the content of a checkpoint to the current format, with its config as a ``TrainConfig``.

    Raises:
        UserError: it is not the content of a checkpoint; the message names what is missing or has another type.
    """
    found = {str(key): value for key, value in state.items()}
    if found["format"] == 1:
        found["hooks"] = {"metric_lines": found.pop("meter", {})}
        seen = found.pop("watch", None)
        if seen is not None:
            found["hooks"]["online_evaluation"] = {**seen, "count": seen.get("looks", 0)}
        found["files"] = {}
    online = found.get("hooks", {}).get("online_evaluation")
    if online is not None:
        found["hooks"] = {**found["hooks"], "online_evaluation": _with_online_names(online)}
    found["config"] = restored(found["config"], state["format"])
    found["spec"] = with_kinds(found["spec"])
    checked = read(found, Checkpoint)
    return {**found, **vars(checked), "environment": hidden(asdict(checked.environment))}


def with_kinds(spec: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Add kind and dtype to the plain columns of a dataset where they are missing, as formats 1 and 2 guessed them."""
    return {name: field if "kind" in field else {**_guessed(field), **field} for name, field in spec.items()}


def _guessed(field: Mapping[str, Any]) -> dict[str, Any]:
    if field.get("vocab"):
        return {"kind": "tokens" if field["shape"] else "id", "dtype": "int64"}
    if len(field["shape"]) == 3:
        return {"kind": "image", "dtype": "uint8"}
    return {"kind": "vector", "dtype": "float32"}


def _with_online_names(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of online evaluation with the name that its kNN accuracy has now."""
    new: dict[Any, Any] = {"knn_top1": "online_knn_top1"}
    others = {new.get(name, name): value for name, value in state.get("others", {}).items()}
    return {**state, "metric": new.get(state.get("metric"), state.get("metric")), "others": others}
