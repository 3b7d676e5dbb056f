"""The settings in which runs differ, and what follows: which of their numbers compare."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sslcli.config.identity import is_changeable
from sslcli.run_dir.formatting import listed
from sslcli.run_dir.records import choice

_NO_SETTINGS = (
    "run_dir",
    "resume",
    "preview",
    "plan",
    "plugins",
    "log",
    "logger",
    "checkpoint",
)  # groups that do not change results
# Keys of a dataset that change how its samples are read, but not which they are.
_READING = tuple(f"dataset.{name}" for name in ("size", "channels", "crop", "normalise", "range"))
# Beside objective, views and data, what changes the value of a loss for the same features.
_OF_THE_LOSS = ("train.batch_size", "encoder.image_size", "encoder.patch_size")
_OF_VIEWS = ("alignment", "lidar")  # metrics that compare random views

Settings = Mapping[str, Any]


def differing(settings: Sequence[Settings]) -> dict[str, list[Any]]:
    """Return the keys that differ between runs, as they are written on the command line, with their values.

    If runs use different options of a config group, the option replaces those of its keys that not all runs have and
    in which runs of one option do not differ. The seed comes last.
    """
    keys = dict.fromkeys(key for run in settings for key in run)
    found: dict[str, list[Any]] = {}
    for key in sorted(keys, key=lambda key: key == "seed"):
        group, _, name = key.partition(".")
        if group in _NO_SETTINGS or (name != "_target_" and name.endswith("_target_")):
            continue
        values = [run.get(key) for run in settings]
        if name == "_target_":
            key, values = group, [choice(run, group) for run in settings]
        elif group in found and not all(key in run for run in settings) and not _within_options(key, settings):
            continue
        if len({text(value) for value in values}) > 1:
            found[key] = values
    return found


def _within_options(key: str, settings: Sequence[Settings]) -> bool:
    """Whether two runs that use the same option of the key's group differ in the key."""
    values: dict[str, set[str]] = {}
    for run in settings:
        values.setdefault(choice(run, key.partition(".")[0]), set()).add(text(run.get(key)))
    return any(len(found) > 1 for found in values.values())


def text(value: Any) -> str:
    """Return a value of a config as it is written in YAML."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def incomparable_losses(runs: Sequence[Settings]) -> str:
    """Return why the losses of these runs do not compare, as the end of a sentence; an empty string if they do."""
    unequal = {key for run in runs for key in run if len({text(other.get(key)) for other in runs}) > 1}
    if not any(_changes_the_loss(key) for key in unequal):
        return ""
    keys = [key for key in differing(runs) if _changes_the_loss(key)] or sorted(filter(_changes_the_loss, unequal))
    return f"the runs differ in {listed(keys, 4)}, so their losses are not one function"


def _changes_the_loss(key: str) -> bool:
    is_of_the_loss = key.partition(".")[0] in ("objective", "views", "dataset") or key in _OF_THE_LOSS
    return is_of_the_loss and not is_changeable(key)


def incomparable(name: str, protocols: Collection[str], runs: Sequence[Settings]) -> str:
    """Return why a metric's values do not compare, as the end of a sentence; an empty string if they do.

    Args:
        name: the metric.
        protocols: the different protocols by which it was measured.
        runs: the settings of the runs that have it.
    """
    if name == "held_out_loss" and (reason := incomparable_losses(runs)):
        return reason
    if len(protocols) > 1:
        return "the runs were measured by different protocols, which the cells name"
    groups = ("dataset", "views") if name in _OF_VIEWS else ("dataset",)
    keys = [
        key
        for key in differing(runs)
        if key.partition(".")[0] in groups and key not in _READING and not is_changeable(key)
    ]
    return f"the runs were measured on different samples or views: they differ in {listed(keys, 4)}" if keys else ""
