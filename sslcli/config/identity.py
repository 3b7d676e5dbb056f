"""The identity of a run: its name, and which keys may differ when it is resumed.

A path is a place and no mathematics: what lies there counts, wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sslcli.config.automatic import AUTO
from sslcli.config.choices import DatasetChoice
from sslcli.config.composed import TrainConfig, to_plain

LENGTH = ("steps", "epochs", "minutes")  # exactly one of these keys of ``train`` is set
_OF_THE_COMMAND = ("run_dir", "resume", "plugins", "preview", "plan", "replay")
# Keys that may change when a run is resumed, because they do not change the weights.
_CHANGEABLE = (
    *_OF_THE_COMMAND,
    *("train.stop_on", "train.recompute", "log", "logger", "checkpoint", "probe", "device"),
    *(f"dataset.{f.name}" for f in fields(DatasetChoice) if f.name not in ("node", "normalise", "range", "buckets")),
)
# Keys that are younger than the names of runs, as regular expressions, since a joint objective has those of its parts:
# one with this value is left out, so that names stay as they were.
_YOUNGER: dict[str, Any] = {
    r"train\.sync_norm": False,
    r"dataset\.buckets": None,
    r"encoder\.bigrams": None,
    r"encoder\.unit": False,
    r"views\.(\w+\.)*delete": 0.0,
    r"objective\.(parts\.\w+\.)?same": None,
    r"objective\.(parts\.\w+\.)?log_q": AUTO,
    r"objective\.(parts\.\w+\.)?unique": False,
    r"objective\.(parts\.\w+\.)?layer": None,
}
# The same for keys of one dataset only, by the end of its _target_.
_YOUNGER_OF_DATA: dict[str, dict[str, Any]] = {
    "interactions": {r"dataset\.(ignore|categories|missing)": None},
}
_WEIGHTS = "encoder.weights"
_OF_PLACES = ("path", "download", "split_folders")


@dataclass(frozen=True)
class Content:
    """What lies at the paths of a config.

    Args:
        data: a digest of the data.
        weights: a digest of the file that ``encoder.weights`` names, or that text if it names no file; None without.
    """

    data: str
    weights: str | None = None


def settings(config: TrainConfig) -> dict[str, Any]:
    """Return all keys that determine the trained weights, without paths."""
    flat = flatten(to_plain(config))
    kept = {key: value for key, value in flat.items() if not (is_changeable(key) or _is_place(key))}
    if kept["train.accumulate"] == AUTO:  # the number depends on the machine and changes nothing that is learned
        kept["train.accumulate"] = 1
    data = str(kept.get("dataset._target_")).rpartition(".")[2]
    younger = {**_YOUNGER, **_YOUNGER_OF_DATA.get(data, {})}
    return {key: value for key, value in kept.items() if not _is_younger(key, value, younger)}


def _is_younger(key: str, value: Any, younger: Mapping[str, Any]) -> bool:
    return any(value == default and re.fullmatch(pattern, key) for pattern, default in younger.items())


def places(config: TrainConfig) -> dict[str, Any]:
    """Return the paths of the data and of the initial weights."""
    return {key: value for key, value in flatten(to_plain(config)).items() if _is_place(key)}


def run_name(config: TrainConfig, choices: Mapping[str, str], content: Content) -> str:
    """Return ``<objective>-<encoder>-<dataset>-<8 hex>``; equal settings with equal content give equal names."""
    identity = [settings(config), content.data, content.weights]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode())
    return f"{name_prefix(choices)}{digest.hexdigest()[:8]}"


def name_prefix(choices: Mapping[str, str]) -> str:
    """Return the readable part of a run's name; ``choices`` maps each config group to the chosen option."""
    words = (str(choices.get(group, "custom")).replace("/", "_") for group in ("objective", "encoder", "dataset"))
    return "-".join((*words, ""))


def differences(old: TrainConfig, new: TrainConfig, free: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """List the changes from a checkpoint's config to this one, as (refused, allowed), each ``key: old -> new``.

    ``free`` are keys that may change because they do not change what this model learns. Changes of the length and of
    paths are listed as allowed; the caller must check them, because it knows the length of the run and what lies at the
    paths.
    """
    before, after = flatten(to_plain(old)), flatten(to_plain(new))
    refused: list[str] = []
    allowed: list[str] = []
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key) and key not in _OF_THE_COMMAND:
            text = f"{key}: {before.get(key)} -> {after.get(key)}"
            is_length = key in tuple(f"train.{name}" for name in LENGTH)
            (allowed if is_length or is_changeable(key) or _is_place(key) or key in free else refused).append(text)
    return refused, allowed


def is_changeable(key: str) -> bool:
    """Whether a key may change when a run is resumed, because it does not change the weights."""
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in _CHANGEABLE)


def _is_place(key: str) -> bool:
    """Whether a key is a path of data or weights, or says only which of them are read: what is read counts."""
    name = key.rpartition(".")[2]
    endings = ("_dir", "_features")
    return key == _WEIGHTS or (key.startswith("dataset.") and (name in _OF_PLACES or name.endswith(endings)))


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Convert ``{a: {b: 1}}`` to ``{"a.b": 1}``: keys as they are written on the command line."""
    if not isinstance(node, Mapping) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat
