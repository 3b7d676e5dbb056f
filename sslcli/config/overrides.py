"""Checks the overrides of the command line that Hydra takes in silence or refuses without naming them."""

from __future__ import annotations

import re
import typing

from sslcli.config.arguments import key_of
from sslcli.config.composed import CONFIGS, unread_parts
from sslcli.config.given import Given
from sslcli.config.yaml_size import refuse_bombs
from sslcli.errors import UserError, suggest

_HYDRAS = ("hydra.sweeper.", "hydra.launcher.", "hydra.verbose")  # what users may set; the rest is this program's
_NULLABLE = ("experiment", "debug", "dataset")  # groups that may be left without an option


def check_overrides(given: Given) -> None:
    """Check the groups and Hydra's own keys among the overrides, and the size of the user's yaml files.

    Raises:
        UserError: a group is given twice, or its value cannot be the name of an option; a key of Hydra's is given that
            this program sets; there is no key before ``=``; or a yaml file stands for too many values.
    """
    for folder in given.folders.paths[1:]:
        refuse_bombs(folder)
    options: dict[str, str] = {}
    for override in given.overrides:
        key, equals, value = override.partition("=")
        group = key_of(override).partition("@")[0]
        if equals and not group:
            spaces = " Leave no spaces around it." if override == "=" else ""
            raise UserError(f"'{override}' is not key=value: there is no key before '='.{spaces}")
        if group.startswith("hydra.") and not group.startswith(_HYDRAS):
            raise UserError(f"{group} is set by this program. Leave it out; run_dir=... chooses the place of a run.")
        _refuse_training(given, group, is_key=key.startswith("+"))
        if not equals or key.startswith("~") or not any((folder / group).is_dir() for folder in given.folders.paths):
            continue
        if key in options:
            raise UserError(f"{key} is given twice, as {options[key]} and as {value}. Give one.")
        options[key] = value
        if not _names_options(value) and not (value == "null" and group in _NULLABLE):
            raise UserError(f"{override}: a group takes the name of an option, {group}=NAME. `--help` lists them.")


def _refuse_training(given: Given, name: str, *, is_key: bool) -> None:
    """Refuse parts that only training has, and their keys: the schema has them for what options of dataset choose."""
    section, dot, _ = name.partition(".")
    kind = CONFIGS[given.name]
    if section in unread_parts(kind):
        if dot or is_key:
            raise UserError(f"Unknown key '{section}'. {suggest(section, typing.get_type_hints(kind))}")
        raise UserError(f"ssl-{given.name} has no group '{section}'. {suggest(section, given.groups)}")


def _names_options(value: str) -> bool:
    """Whether a value is the name of an option, a list of names, or a sweep over either."""
    names = re.split(r"[\[\],]", re.sub(r"\s|choice\(|\)", "", value))
    return all(name != "null" and not re.fullmatch(r"[\d.]+", name) for name in names) and bool(value)
