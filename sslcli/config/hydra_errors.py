"""Rewrites errors of Hydra and OmegaConf: which key is wrong, why, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from sslcli.errors import suggest


def explain(error: BaseException) -> str:
    """Return a message of one or two lines for an exception that was raised while the config was composed."""
    causes = list(_chain(error))
    text = "\n".join(str(cause) for cause in causes)
    for rule in (_yaml, _unknown_option, _unknown_key, _wrong_type, _grammar, _interpolation):
        message = rule(text, causes)
        if message:
            return message
    return str(error).strip().splitlines()[0]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _yaml(_: str, causes: list[BaseException]) -> str | None:
    for cause in causes:
        if isinstance(cause, yaml.MarkedYAMLError) and cause.problem_mark is not None:
            mark = cause.problem_mark
            return f"{mark.name}, line {mark.line + 1}: {cause.problem or cause.context}."
    return None


def _unknown_option(text: str, _: list[BaseException]) -> str | None:
    found = re.search(r"Could not find '([^']+)'\n\nAvailable options in '([^']+)':\n((?:\t.*\n?)*)", text)
    if not found:
        return None
    option, group, known = Path(found[1]).name, found[2], found[3].split()
    return f"{group}: there is no option '{option}'. {suggest(option, known)}"


def _unknown_key(text: str, causes: list[BaseException]) -> str | None:
    if not re.search(r"Key '[^']+' (is not in struct|not in ')", text):
        return None
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException) and cause.key is not None and cause.full_key:
            return f"Unknown key '{cause.full_key}'. {suggest(str(cause.key), _keys(cause.parent_node))}"
    return None


def _keys(node: Any) -> list[str]:
    return [str(key) for key in node if key != "_target_"] if node is not None else []


def _grammar(text: str, causes: list[BaseException]) -> str | None:
    for cause in causes:
        override = getattr(cause, "override", None)
        if isinstance(override, str):
            return f"'{override}' is not key=value; put special characters into quotes: 'key=\"a b\"'."
    found = re.search(r"Error merging override ([\w.]+)=", text)
    if found:
        return f"{found[1]} is a section, not a value; set one of its keys: {found[1]}.KEY=..."
    if "Config group override must be a string" in text:
        return "A group takes the name of an option: group=option. `--help` lists them."
    return None


def _wrong_type(text: str, _: list[BaseException]) -> str | None:
    key = re.search(r"full_key: (\S+)", text)
    where = key[1] if key else "config"
    found = re.search(r"Value '(.*)' of type '[^']+' could not be converted to (\w+)", text)
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
        return f"{where} must be a list: {where}=[a,b]"
    return None


def _interpolation(text: str, _: list[BaseException]) -> str | None:
    recursive = re.search(r"Recursive interpolation detected(?:.|\n)*?full_key: (\S+)", text)
    if recursive:
        return f"{recursive[1]}: it refers to itself. Give a value."
    found = re.search(r"Interpolation key '([^']+)' not found", text)
    return f"The config refers to '{found[1]}', which is not there." if found else None
