"""The folders of yaml files without Hydra: groups, their options, and what a file says about its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Folders:
    """The program's own folder of yaml files, and after it the user's, whose sub-folders are the groups."""

    paths: Sequence[Path]

    @cached_property
    def groups(self) -> dict[str, dict[str, Path]]:
        """The files of each group by the names of its options."""
        found: dict[str, dict[str, Path]] = {}
        for folder in self.paths:
            for path in sorted(folder.glob("*/*.yaml")):
                found.setdefault(path.parent.name, {}).setdefault(path.stem, path)
        return found

    @property
    def own(self) -> list[Path]:
        """The yaml files in the user's folder."""
        return sorted(path for folder in self.paths[1:] for path in folder.rglob("*.yaml") if path.is_file())

    def keys(self, group: str, option: str) -> set[str]:
        """Return the keys of an option, with those that it takes from other options of its group."""
        found: set[str] = set()
        for path in self.files(group, option):
            found |= {key for key in _mapping(path) if isinstance(key, str)} - {"defaults", "_target_"}
        return found

    def files(self, group: str, option: str) -> Iterator[Path]:
        """Iterate over the file of an option and those of its group that its list of defaults names."""
        path = self.groups.get(group, {}).get(option)
        if path is None:
            return
        yield path
        listed = _mapping(path).get("defaults")
        for entry in listed if isinstance(listed, list) else []:
            if isinstance(entry, str) and entry not in (option, "_self_"):
                yield from self.files(group, entry)

    def defaults(self, command: str) -> dict[str, str]:
        """Return the groups of a command, and the option that it takes unless another is chosen, or ``null``."""
        listed = _mapping(self.paths[0] / f"{command}.yaml")["defaults"]
        pairs = [pair for entry in listed if isinstance(entry, Mapping) for pair in entry.items()]
        return {group: str(option or "null") for group, option in pairs if group in self.groups}

    def value(self, command: str, choices: Mapping[str, str], key: str) -> str:
        """Return the value of a part's key in the default config, as it is written; an empty text if no yaml has it."""
        group, _, name = key.partition(".")
        of_command = _mapping(self.paths[0] / f"{command}.yaml").get(group)
        for node in (of_command, *map(_mapping, self.files(group, choices.get(group, "")))):
            if isinstance(node, Mapping) and name in node:
                return as_written(node[name])
        return ""


def as_written(value: Any) -> str:
    """Return a value as it is written on a command line: null, true, [1,2]."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("...").strip()
    return text.replace(", ", ",")


def _mapping(path: Path) -> Mapping[Any, Any]:
    """Return what a yaml file holds; nothing if it is broken, which is told when it is used."""
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, Mapping) else {}


def describe(path: Path) -> str:
    """Return the first comment of a yaml file, apart from Hydra's ``@package`` directive."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ")
    return ""


def comments(path: Path) -> dict[str, str]:
    """Return the comment behind each key of a yaml file; keys of inner mappings are named ``outer.inner``."""
    found: dict[str, str] = {}
    outer: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key = re.match(r"( *)([\w.]+):(?:\s|$)", line)
        if key is None:
            continue
        outer = [(indent, name) for indent, name in outer if indent < len(key[1])]
        outer.append((len(key[1]), key[2]))
        text = re.search(r"\s#\s*(.+)$", line)
        if text:
            found[".".join(name for _, name in outer)] = text[1]
    return found
