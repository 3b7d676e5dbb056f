"""Which run a config describes: its name, and what may differ between a checkpoint's config and the command's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sslcli.config.choices import DatasetChoice
from sslcli.config.composed import TrainConfig, to_plain

LENGTH = ("steps", "epochs", "minutes")  # of which a run has one
# What a run that goes on may change: it does not touch the mathematics.
_CHANGEABLE = ("run_dir", "resume", "plugins", "preview", "log", "logger", "checkpoint", "probe", "device") + tuple(
    f"dataset.{f.name}" for f in fields(DatasetChoice) if f.name != "node"
)


def fingerprint(config: TrainConfig) -> str:
    """Eight hexadecimal digits of everything in a config that decides what is trained."""
    identity = {key: value for key, value in flatten(to_plain(config)).items() if not _is_changeable(key)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:8]


def run_name(config: TrainConfig, choices: Mapping[str, str]) -> str:
    """``<objective>-<encoder>-<dataset>-<8 hex>``: the same training config always finds the same run."""
    return f"{name_prefix(choices)}{fingerprint(config)}"


def name_prefix(choices: Mapping[str, str]) -> str:
    """The part of a run's name that people read; ``choices`` are the options by their groups."""
    words = (str(choices.get(group, "custom")).replace("/", "_") for group in ("objective", "encoder", "dataset"))
    return "-".join((*words, ""))


def differences(old: TrainConfig, new: TrainConfig) -> tuple[list[str], list[str]]:
    """What changed between a checkpoint's config and this one: (refused, allowed), each ``key: old -> new``.

    The run's length is left to the caller, who knows how long it was.
    """
    before, after = flatten(to_plain(old)), flatten(to_plain(new))
    refused: list[str] = []
    allowed: list[str] = []
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key) and key not in ("run_dir", "resume", "plugins", "preview"):
            text = f"{key}: {before.get(key)} -> {after.get(key)}"
            is_length = key in tuple(f"train.{name}" for name in LENGTH)
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
