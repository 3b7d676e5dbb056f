"""Explains overrides of the command line that cannot be read, or that Hydra does not take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from sslcli.config.failures import Failure
from sslcli.config.given import Given
from sslcli.config.quoting import override as quoted
from sslcli.config.suggestions import options_called
from sslcli.errors import suggest


def wrong_grammar(failure: Failure) -> str | None:
    """Explain an override that Hydra's grammar does not allow."""
    for cause in failure.causes:
        override = getattr(cause, "override", None)
        if isinstance(override, str):
            return _ungrammatical(override, failure.given)
    return None


def _ungrammatical(override: str, given: Given) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"'{override}' is not key=value. {_bare_word(override, given)}"
    if not re.fullmatch(r"[+~]*[\w./@:-]+", key):
        return f"'{override}' is not key=value: '{key}' cannot be a key."
    if sum(value.count(c) for c in "([{") != sum(value.count(c) for c in ")]}"):
        return f"'{override}' is not key=value: a bracket is open. A text is written {quoted(key, value)}"
    return f"'{override}' is not key=value: quotes are missing. Write: {quoted(key, value)}"


def _bare_word(word: str, given: Given) -> str:
    """Return what a word without ``=`` may have meant: an option of a group, a run, a folder of pictures."""
    meant = options_called(given, word)
    if meant:
        return f"Did you mean: {' or '.join(meant)}"
    if word in given.groups:
        return f"{word} takes an option: {word}={', '.join(given.folders.groups[word])}"
    if Path(word).exists():
        return f"Did you mean: {_of_path(word, given)}"
    return "`--help` lists keys and options."


def _of_path(path: str, given: Given) -> str:
    return f"dataset=images {quoted('dataset.path', path)}" if given.name == "train" else quoted("run", path)


_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "None": "null"}


def several_values(failure: Failure) -> str | None:
    """Explain several values of one key without the flag for a sweep."""
    found = re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.+)'", failure.text)
    if not found:
        return None
    override = found[1]
    key, _, value = override.partition("=")
    if key in failure.given.groups:
        more = f" Several of them are a list: {key}=[{value}]" if key == "logger" else ""
        return f"{override}: -m runs the command once for each of several options.{more}"
    if "(" in value:
        return f"{override}: -m runs the command once for each of several values."
    return (
        f"{override}: -m runs the command once for each of several values. "
        f"A list is written {shlex.quote(f'{key}=[{value}]')}, a text with commas {quoted(key, value)}"
    )


def refused_override(failure: Failure) -> str | None:
    """Explain overrides that Hydra can read and does not take."""
    text = failure.text
    found = re.search(r"Error merging override ([\w.]+)=", text)
    types = re.search(r"Value '(.*)' of type '\w+' is incompatible with type hint '(.+)'", text)
    if found and types:
        names = " or ".join(word for name, word in _TYPES.items() if re.search(rf"\b{name}\b", types[2]))
        return f"{found[1]}: '{types[1]}' is not {names}."
    if found:
        return f"{found[1]} is a section, not a value; set one of its keys: {found[1]}.KEY=..."
    if "Config group override must be a string" in text:
        return "A group takes the name of an option: group=option. `--help` lists them."
    found = re.search(r"Could not override '([^']+)'\. No match in the defaults list", text)
    if found:
        return f"ssl-{failure.given.name} has no group '{found[1]}'. {suggest(found[1], failure.given.groups)}"
    found = re.search(r"Multiple values for (\S+)\. ", text)
    if found:
        return f"{found[1]} has an option already. Leave out the +: {found[1]}={failure.given.value(found[1])}"
    found = re.search(r"Could not delete (?:from config\. )?'([^']+)'", text)
    if found:
        return f"~{found[1]}: the config has nothing of that name to take away."
    found = re.search(r"Additional config directory '([^']+)' not found", text)
    if found:
        return (
            f"--config-dir: {found[1]} is a file, not a folder."
            if Path(found[1]).exists()
            else (f"--config-dir: there is no folder {found[1]}.")
        )
    found = re.search(r"Cannot find primary config '([^']+)'|Primary config module '([^']+)' not found", text)
    if found:
        return "--config-name and --config-path: this program chooses them. Leave them out; --config-dir adds a folder."
    return None
