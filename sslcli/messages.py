"""Hydra's and OmegaConf's errors, rewritten: where, what, and the way out."""

from __future__ import annotations

import re
from pathlib import Path

from sslcli.errors import suggest


def explain(error: BaseException, arguments: list[str]) -> str:
    """One or two lines for an error of the config libraries."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 6:
        chain.append(current)
        current = current.__cause__ or current.__context__
    text = "\n".join(str(link) for link in chain)
    for rule in (_unknown_option, _unknown_key, _wrong_type, _grammar, _no_group, _interpolation):
        message = rule(text, arguments)
        if message:
            return message
    return str(error).strip().splitlines()[0]


def _unknown_option(text: str, _: list[str]) -> str | None:
    found = re.search(r"Could not find '(?P<path>[^']+)'\n\nAvailable options in '(?P<group>[^']+)':\n(?P<list>(?:\t.*\n?)*)", text)
    if not found:
        return None
    group, option = found["group"], Path(found["path"]).name
    known = [line.strip() for line in found["list"].splitlines()]
    return f"{group}: there is no option '{option}'. {suggest(option, known)}"


def _unknown_key(text: str, _: list[str]) -> str | None:
    found = re.search(r"Key '(?P<key>[^']+)' (?:is not in struct|not in '[^']+')\s+full_key: (?P<full>\S+)", text)
    if not found:
        return None
    return f"Unknown key '{found['full']}'."


def _wrong_type(text: str, _: list[str]) -> str | None:
    key = re.search(r"full_key: (\S+)", text)
    where = key[1] if key else "config"
    found = re.search(r"Value '(?P<value>.*)' of type '[^']+' could not be converted to (?P<kind>\w+)", text)
    if found:
        kinds = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
        return f"{where}: '{found['value']}' is not {kinds.get(found['kind'], found['kind'])}."
    if "is not a ListConfig" in text:
        return f"{where} must be a list: {where}=[a,b]"
    if "is not a DictConfig" in text or "Cannot assign" in text or "to a DictConfig" in text:
        return f"{where} is a section, not a value; set one of its keys: {where}.KEY=..."
    return None


def _grammar(text: str, _: list[str]) -> str | None:
    found = re.search(r"Error parsing override '(?P<override>[^']*)'", text)
    if not found:
        found = re.search(r"missing EQUAL at '<EOF>'|(?P<override>\S+)\s*\n?\s*missing EQUAL", text)
    if not found:
        return None
    return f"'{found['override']}' is not an override. Write key=value; quote values with spaces or brackets: 'key=\"a b\"'."


def _no_group(text: str, arguments: list[str]) -> str | None:
    found = re.search(r"Could not override '(?P<key>[^']+)'", text)
    if not found:
        return None
    return f"Unknown key or group '{found['key']}'. `--help` lists them."


def _interpolation(text: str, _: list[str]) -> str | None:
    found = re.search(r"Interpolation key '(?P<key>[^']+)' not found", text)
    return f"The config refers to '{found['key']}', which is not there." if found else None
