"""Prepares the command line for Hydra: ``~``, the folder of a sweep, the folders of configs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from sslcli.config.paths import expand
from sslcli.config.secrets import hide
from sslcli.errors import UserError

FLAGS = {"-h", "--help", "--version", "--hydra-help", "-m", "--multirun", "--resolve", "-sc",
          "--shell-completion"}  # fmt: skip
FLAGS_WITH_VALUE = {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p",
                     "--cfg", "-c", "--info", "-i"}  # fmt: skip


SWEEP = {"-m", "--multirun"}


def overrides_of(arguments: list[str]) -> list[str]:
    """Return the arguments that are neither a flag nor the value of one."""
    before = ["", *arguments]
    return [word for flag, word in zip(before, arguments) if not word.startswith("-") and flag not in FLAGS_WITH_VALUE]


def key_of(override: str) -> str:
    """Return the key or the group of an override, without the sign before it."""
    return override.partition("=")[0].lstrip("+~")


def constant_keys(arguments: list[str]) -> set[str]:
    """Return the keys of overrides with one value: those in which the jobs of a sweep are alike."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(overrides_of(arguments))
    return {key_of(override.get_key_element()) for override in parsed if not override.is_sweep_override()}


def varying(overrides: Sequence[str], arguments: list[str]) -> list[str]:
    """Return those of a job's overrides in which the jobs of a sweep may differ."""
    alike = constant_keys(arguments)
    return [text for text in overrides if key_of(text) not in alike]


def home_expanded(argument: str) -> str:
    """Replace ``~`` in ``key=~/x``: a shell does not expand it there, and Hydra's grammar does not allow it."""
    key, equals, value = argument.partition("=")
    return f"{key}={expand(value)}" if equals and value.startswith("~") else argument


def sweep_dir(arguments: list[str]) -> Path:
    """Return the folder of a sweep: ``run_dir`` if it is given, else a name computed from the overrides.

    Raises:
        UserError: ``run_dir`` has several values.
    """
    overrides = overrides_of(arguments)
    own = [override for override in overrides if key_of(override) == "run_dir"]
    if any(_has_several_values(override) for override in own):
        raise UserError(f"{own[-1]}: the jobs of a sweep lie in one folder, RUN_DIR/0, RUN_DIR/1, ... Give one path.")
    given = [_value(override) for override in own]
    if given and given[-1]:
        return expand(given[-1])
    return Path("runs") / f"sweep-{hashlib.sha256(hide(' '.join(overrides)).encode()).hexdigest()[:8]}"


def asks_for_plan(overrides: Sequence[str]) -> bool:
    """Whether ``plan=true`` is among the overrides, or the last word about it."""
    return [_value(text) for text in overrides if key_of(text) == "plan"][-1:] == ["True"]


def _value(override: str) -> str:
    """Return the text that an override stands for; an empty one for null and for what is no text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = OmegaConf.create({"value": OverridesParser.create().parse_override(override).value()})["value"]
    except (HydraException, OmegaConfBaseException):
        return ""  # it is told when the config is composed
    return "" if value is None else str(value)


def _has_several_values(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(override).is_sweep_override()
    except HydraException:
        return False  # it is told when the config is composed


def conf_dir() -> str:
    """Return the folder of the yaml files: inside an installed package, or next to the package in a checkout.

    Raises:
        UserError: there is no such folder.
    """
    here = Path(__file__).resolve().parents[1]
    for path in (here / "conf", here.parent / "conf"):
        if (path / "train.yaml").is_file():
            return str(path)
    raise UserError("The folder conf/ is missing from this installation. Install sslcli again.")


def config_dir(arguments: list[str]) -> str | None:
    for flag, value in zip(arguments, [*arguments[1:], ""]):
        name, equals, joined = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            return joined if equals else value
    return None
