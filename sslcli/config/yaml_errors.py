"""Explains what is wrong in a yaml file of the user: its form, its list of defaults, what it refers to."""

from __future__ import annotations

import difflib
import os
import re

import yaml
from omegaconf.errors import GrammarParseError

from sslcli.config.failures import Failure, line_of
from sslcli.errors import suggest

# What YAML says -> what it means for most who read it.
_MEANINGS = {
    "found character '\\t'": "a tab stands where spaces belong",
    "mapping values are not allowed here": "a line is indented otherwise than those beside it, or a text with ': ' "
    "lacks quotes",
    "found unexpected end of stream": "a quote is not closed",
    "<stream end>": "a bracket is not closed",
    "could not determine a constructor for the tag": "tags (!!) are not read here",
    "found unhashable key": "a key must be a text",
}


def unreadable(failure: Failure) -> str | None:
    """Explain a file that is no YAML, with its line."""
    for cause in failure.causes:
        if isinstance(cause, yaml.MarkedYAMLError) and cause.problem_mark is not None:
            mark, problem = cause.problem_mark, str(cause.problem or cause.context)
            meaning = next((text for said, text in _MEANINGS.items() if said in problem), "")
            return f"{mark.name}, line {mark.line + 1}: {meaning or problem}{f' ({problem})' if meaning else ''}."
        if isinstance(cause, yaml.reader.ReaderError):
            return f"{cause.name}: it holds a control character, at position {cause.position}. Remove it."
        if isinstance(cause, UnicodeDecodeError):
            return f"{_not_utf8(failure) or 'A yaml file'} is not UTF-8 ({cause.reason}). Save it as UTF-8."
        if isinstance(cause, GrammarParseError) and cause.key is not None:
            return (
                f"{failure.place(str(cause.key))}{cause.key}: '{cause.value}' is not closed, or not written ${{KEY}}."
            )
    return None


def _not_utf8(failure: Failure) -> str | None:
    for path in failure.given.folders.own:
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            return str(path)
    return None


def wrong_defaults(failure: Failure) -> str | None:
    """Explain a ``defaults`` list, or a file that cannot be merged with the config."""
    found = re.search(r"[Ii]n '?([\w./-]+?)'?[:,] (.*)", failure.text)
    if not found:
        return None
    group, _, option = found[1].rpartition("/")
    path = failure.given.folders.groups.get(group, {}).get(option)
    if path is None:
        return None
    said = found[2]
    groups = failure.given.folders.groups
    missing = re.search(r"Could not (?:load|find|override) '([^']+)'", said)
    if missing:
        wanted, _, name = missing[1].rpartition("/") if "override" not in said else (missing[1], "", missing[1])
        where = line_of(path, name)
        if wanted in groups:
            return f"{where}: {wanted} has no option '{name}'. {suggest(name, groups[wanted])}"
        inner = wanted.removeprefix(f"{group}/")
        if inner in groups:
            return (
                f"{where}: another group is written with a slash, and one that has an option already with override: "
                f"'override /{inner}: {name}'"
            )
        return f"{where}: there is no group '{inner}'. {suggest(inner, groups)}"
    if "is defined before" in said:
        return f"{line_of(path, 'override')}: entries with override stand last in defaults."
    if "defaults must be a list" in said:
        return f"{line_of(path, 'defaults')}: defaults is a list: one entry a line, after '  - '."
    if "Cannot merge" in failure.text:
        return f"{path}: it must hold keys, 'key: value', not a list."
    if "is incompatible with (str)" in failure.text:
        key = re.search(r"Key (\S+) \(", failure.text)
        name = key[1] if key else "a key"
        return f"{line_of(path, name)}: the key {name} is not a text. Put it into quotes."
    return None


def interpolation(failure: Failure) -> str | None:
    """Explain a ``${...}`` that leads nowhere."""
    text = failure.text
    full_key = re.search(r"full_key: (\S+)", text)
    key = full_key[1] if full_key else "The config"
    if "Recursive interpolation detected" in text:
        return f"{failure.place(key)}{key}: it refers to itself. Give a value."
    place = failure.place(key, "${")
    missing = re.search(r"Interpolation key '([^']+)' not found", text)
    if missing:
        return f"{place}{key} refers to '{missing[1]}', which is not there. {_meant(failure, missing[1])}".rstrip()
    unset = re.search(r"Environment variable '([^']+)' not found", text)
    if unset:
        return f"{place}{key} reads the environment variable {unset[1]}, which is not set. Set it, or give a value."
    resolver = re.search(r"Unsupported interpolation type (\S+)", text)
    return (
        f"{place}{key}: there is no '${{{resolver[1]}:...}}'. Known: oc.env and others of OmegaConf."
        if resolver
        else None
    )


def _meant(failure: Failure, name: str) -> str:
    if name in os.environ:
        return f"An environment variable is written ${{oc.env:{name}}}."
    near = difflib.get_close_matches(name, failure.given.keys(failure.given.chosen()), n=1)
    return f"Did you mean '{near[0]}'?" if near else ""
