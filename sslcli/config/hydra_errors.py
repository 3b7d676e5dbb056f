"""Rewrites errors of Hydra, OmegaConf and YAML: where it is written, which key is wrong, why, and what to do."""

from __future__ import annotations

import re
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from sslcli.config.failures import Failure
from sslcli.config.given import GLOBAL, Given
from sslcli.config.override_errors import refused_override, several_values, wrong_grammar
from sslcli.config.suggestions import unknown_key, unknown_option
from sslcli.config.yaml_errors import interpolation, unreadable, wrong_defaults


def explain(error: BaseException, given: Given) -> str:
    """Return a message of one or two lines for an exception that was raised while the config was composed."""
    failure = Failure.of(error, given)
    rules = (
        wrong_grammar,
        unreadable,
        _unknown_option,
        _unknown_key,
        wrong_defaults,
        interpolation,
        _wrong_type,
        several_values,
        refused_override,
    )
    for rule in rules:
        message = rule(failure)
        if message:
            return message
    return (failure.text.strip() or type(error).__name__).splitlines()[0]


def _unknown_option(failure: Failure) -> str | None:
    found = re.search(r"Could not find '([^']+)'\n\nAvailable options in '([^']+)':\n((?:\t.*\n?)*)", failure.text)
    if not found:
        return None
    group, known = found[2], found[3].split()
    option = found[1].removeprefix(f"{group}/")
    return f"{failure.place(group, option)}{unknown_option(failure.given, group, option, known)}"


def _unknown_key(failure: Failure) -> str | None:
    if not re.search(r"Key '[^']+' (is not in struct|not in ')", failure.text):
        return None
    for cause in failure.causes:
        if isinstance(cause, OmegaConfBaseException) and cause.key is not None and cause.full_key:
            key = str(cause.full_key)
            if key in GLOBAL:
                option = failure.given.value(key)
                path = failure.given.folders.groups[key].get(str(option), f"{key}={option}")
                return f"{path}: its first line must be '# @package _global_', as it changes the whole config."
            group, value = key.partition(".")[0], failure.given.value(key)
            if "," in (failure.given.value(group) or "") and value is not None:
                text = f"{key}: Hydra looks for it in the default option of {group} while a sweep goes over others."
                return f"{text} Write ++{key}={value}; each job must have the key."
            return f"{failure.place(key)}{unknown_key(failure.given, key, _names(cause.parent_node))}"
    return None


def _names(node: Any) -> list[str]:
    return [str(key) for key in node] if node is not None else []


def _wrong_type(failure: Failure) -> str | None:
    text = failure.text
    found = re.search(r"full_key: (\S+)", text)
    key = found[1] if found else "config"
    found = re.search(r"Value '(.*)' of type '[^']+' could not be converted to (\w+)", text)
    where = f"{failure.place(key, found[1] if found else '')}{key}"
    if found:
        kinds = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        return f"{where}: '{found[1]}' is not {kinds.get(found[2], found[2])}."
    found = re.search(r"Value '(.*)' is not a valid bool", text)
    if found:
        return f"{where}: '{found[1]}' is not true or false."
    if "is not Optional" in text:
        return f"{where} must have a value; it cannot be null."
    if "does not support deletion" in text:
        return f"{where} cannot be taken away; leave it as it is or change it."
    if "is not a ListConfig" in text:
        return f"{where} must be a list: {key}=[a,b]"
    return None
