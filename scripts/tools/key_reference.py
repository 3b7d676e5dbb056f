"""Write docs/keys.md, every key of the config with its values and its meaning, from yaml comments and docstrings.

python scripts/tools/key_reference.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sslcli.config.arguments import conf_dir
from sslcli.config.composed import CONFIGS
from sslcli.config.given import Given
from sslcli.config.help import default, explained
from sslcli.config.options import Folders, comments, describe
from sslcli.config.part_help import About

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"
GROUPS = ("encoder", "objective", "dataset", "views", "optimizer", "schedule", "probe", "logger", "format")
TITLE = """# All keys

Made by `python scripts/tools/key_reference.py` from the comments of the yaml files and the docstrings of the
constructors; a test says when it is out of date. `ssl-train objective=moco --help` prints the same of the
parts that are chosen. Options of a group that share a constructor share a table: first the value of most of
them, then other values with the options that have them.
"""


def page() -> str:
    folders = Folders([Path(conf_dir())])
    lines = [TITLE]
    for name in CONFIGS:
        lines += [f"## ssl-{name}", "", *_table(_fixed(name, folders)), ""]
    for group in GROUPS:
        lines += [f"## {group}", ""]
        for options in _alike(group, folders):
            lines += [*(f"- `{group}={option}`: {_told(folders, group, option)}" for option in options), ""]
            rows = list(_keys(group, options, folders))
            lines += [*_table(rows), ""] if rows else []
    return "\n".join(lines).rstrip() + "\n"


def _fixed(name: str, folders: Folders) -> Iterator[tuple[str, str, str]]:
    """Keys of a command that no part has."""
    chosen = folders.defaults(name)
    for key, words in explained(name).items():
        if key.partition(".")[0] not in GROUPS:
            yield key, f"`{folders.value(name, chosen, key) or default(CONFIGS[name], key)}`", words
    for key, words in comments(folders.paths[0] / f"{name}.yaml").items():
        if "." in key and key.partition(".")[0] in GROUPS:  # keys of any option
            yield key, f"`{folders.value(name, chosen, key)}`", words


def _alike(group: str, folders: Folders) -> list[list[str]]:
    """The options of a group, together where they have one constructor."""
    found: dict[str, list[str]] = {}
    for option in folders.groups[group]:
        found.setdefault(str(_node(group, option, folders).get("_target_", option)), []).append(option)
    return list(found.values())


def _node(group: str, option: str, folders: Folders) -> dict[str, Any]:
    """What an option holds, with what it takes from other options of its group."""
    node: dict[str, Any] = {}
    for path in reversed(list(folders.files(group, option))):
        node |= yaml.safe_load(path.read_text()) or {}
    node.pop("defaults", None)
    return node


def _keys(group: str, options: list[str], folders: Folders) -> Iterator[tuple[str, str, str]]:
    values: dict[str, dict[str, list[str]]] = {}
    words: dict[str, str] = {}
    for option in options:
        about = About(Given("train" if group != "format" else "export", [], folders), {group: option})
        where = f"{group}.{option}" if group == "logger" else group
        for key, value, text in about.rows(group, _node(group, option, folders), where):
            if key.endswith(".parts"):
                continue  # options of the same group, which have tables of their own
            values.setdefault(key, {}).setdefault(value, []).append(option)
            words[key] = words.get(key) or text
    for key, having in values.items():
        (usual, _), *others = sorted(having.items(), key=lambda pair: -len(pair[1]))
        shown = [f"`{usual}`", *(f"`{value}` ({', '.join(names)})" for value, names in others)]
        yield key, ", ".join(shown), words[key]


def _told(folders: Folders, group: str, option: str) -> str:
    return describe(folders.groups[group][option])


def _table(rows: Iterator[tuple[str, str, str]] | list[tuple[str, str, str]]) -> list[str]:
    cells = [(f"`{key}`", value, words) for key, value, words in rows]
    return ["| key | value | meaning |", "|---|---|---|", *(f"| {' | '.join(map(_cell, row))} |" for row in cells)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
