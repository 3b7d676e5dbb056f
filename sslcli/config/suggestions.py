"""What the user may have meant by a key or an option that is not there: overrides that can be pasted."""

from __future__ import annotations

import difflib
import importlib.machinery
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from sslcli.config.composed import CONFIGS, unread_parts
from sslcli.config.given import Given
from sslcli.config.other_names import FIRST, KEYS, OPTIONS, PACKAGES, Nearest
from sslcli.config.quoting import override
from sslcli.errors import suggest

_MOST = 3  # overrides that one message offers


def unknown_option(given: Given, group: str, option: str, known: Sequence[str]) -> str:
    """Return the message about an option that a group does not have."""
    package = PACKAGES.get(group, {}).get(option)
    if package:
        return f"{group}: '{option}' comes with a package of its own. Install it: pip install {package}"
    other = OPTIONS.get(group, {}).get(_plain(option))
    if isinstance(other, Nearest):
        return f"{group}: '{option}' is not in this tool. The nearest is: {other}"
    if other:
        recipes = [name for name in given.folders.groups.get("experiment", {}) if name.startswith(f"{option.lower()}_")]
        published = f"; as published: {' or '.join(f'experiment={name}' for name in recipes)}" if recipes else ""
        return f"{group}: '{option}' is written here as: {other}{published}"
    model, dot, _ = option.partition(".")
    if group == "encoder" and model in timm_models():
        weights = f" encoder.weights=timm:{option}" if dot else ""
        return f"{group}: '{option}' is of timm. It is written here as: encoder=timm encoder.name={model}{weights}"
    if group == "dataset" and ("/" in option or Path(option).exists()):
        path = override("dataset.path", option)
        return f"{group}: a path is not an option. It is written here as: dataset=images {path}"
    if group == "device" and re.fullmatch(r"(cuda:)?\d+", option):
        return f"{group}: one of several GPUs is written here as: device.name=cuda:{option.removeprefix('cuda:')}"
    near = difflib.get_close_matches(option.lower(), known, n=1)
    return f"{group}: there is no option '{option}'. {suggest(near[0] if near else option, known)}"


def options_called(given: Given, word: str) -> list[str]:
    """Return the overrides that choose an option of this name, its own or another, in any group."""
    group, _, name = word.rpartition("/")
    groups = [group] if group in given.groups else given.groups
    own = [f"{group}={name}" for group in groups if name in given.folders.groups[group]]
    return own + [OPTIONS[group][_plain(name)] for group in groups if _plain(name) in OPTIONS.get(group, {})]


def timm_models() -> set[str]:
    """Return the names of timm's models, read from its files: to import it takes seconds."""
    spec = importlib.machinery.PathFinder.find_spec("timm")
    folders = (spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in Path(folder, "models").glob("*.py")]
    return {name for path in files for name in re.findall(r"@register_model\s+def (\w+)", path.read_text("utf-8"))}


def unknown_key(given: Given, key: str, known: Iterable[str] = ()) -> str:
    """Return the message about a key that is not there.

    Args:
        given: the command.
        key: the whole key, such as ``dataset.path``.
        known: the names that stand in its section.
    """
    known = sorted(set(known) - {"hydra", "_target_", "parts"} - unread_parts(CONFIGS[given.name]))
    value = given.value(key)
    leaf = key.rpartition(".")[2]
    meant = meant_by(given, key, value)
    if not meant and not difflib.get_close_matches(leaf, known):
        meant = _misspelt(given, leaf, value)
    return f"Unknown key '{key}'. {meant or suggest(leaf, known)}"


def meant_by(given: Given, key: str, value: str | None) -> str:
    """Return a sentence with the overrides that a key may stand for; an empty one if none are known."""
    section, _, leaf = key.rpartition(".")
    if key in (*given.groups, *given.keys(given.chosen())):
        return f"Did you mean: {_written(key, value)}"
    return (
        _in_options(given, [section], leaf, value)
        or _by_another_name(given, leaf, value)
        or _in_chosen(given, leaf, value)
        or _in_options(given, given.parts, leaf, value)
    )


def _by_another_name(given: Given, leaf: str, value: str | None) -> str:
    known = {*given.keys(given.chosen()), *given.groups}
    for template in KEYS.get(_plain(leaf), ()):
        first = template.partition("=")[0]
        if first in known:
            return f"Did you mean: {template.replace('{}', _quoted(value))}"
    return ""


def _in_chosen(given: Given, leaf: str, value: str | None) -> str:
    found = [name for name in given.keys(given.chosen()) if name.rpartition(".")[2] == leaf]
    return f"Did you mean: {' or '.join(_written(name, value) for name in found[:_MOST])}" if found else ""


def _in_options(given: Given, groups: Sequence[str], leaf: str, value: str | None) -> str:
    """Return which options of one of the groups have the key."""
    for group in groups:
        names = given.folders.groups.get(group, {})
        options = [name for name in names if leaf in given.folders.keys(group, name)]
        if group in given.parts and options:
            options.sort(key=lambda name: name != FIRST.get(group))
            more = [*options[1:_MOST], *["..."] * (len(options) > _MOST)]
            others = f" (also in {', '.join(more)})" if more else ""
            return f"A key of this name is in: {group}={options[0]} {_written(f'{group}.{leaf}', value)}{others}"
    return ""


def _misspelt(given: Given, leaf: str, value: str | None) -> str:
    leaves = {name.rpartition(".")[2]: name for name in reversed(given.keys(given.chosen()))}
    near = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)
    return f"Did you mean: {_written(leaves[near[0]], value)}" if near else ""


def _written(key: str, value: str | None) -> str:
    return f"{key}={_quoted(value)}"


def _quoted(value: str | None) -> str:
    """Return a value, which is quoted for Hydra already, with quotes for the shell where it needs them."""
    return "..." if value is None else shlex.quote(value) if value else "''"


def _plain(word: str) -> str:
    """Return a name as the tables of other names have it."""
    return re.sub(r"[-_\s]", "", word.lower())
