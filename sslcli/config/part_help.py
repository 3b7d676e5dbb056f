"""The text of ``--help`` after overrides: the keys of the parts that they choose, with values and explanations."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sslcli.config.docstrings import Parameter, parameters
from sslcli.config.given import Given
from sslcli.config.help import explained
from sslcli.config.options import as_written, comments, describe
from sslcli.config.quoting import for_hydra

_LONGEST = 100  # characters of an explanation


def text(given: Given) -> str:
    """Return the chosen option of each group of a command with a line for each of its keys.

    Raises:
        Exception: whatever Hydra raises where the config cannot be composed.
    """
    config, choices = composed(given)
    about = About(given, choices)
    lines = [f"The keys of ssl-{given.name} {' '.join(given.overrides)}, with their values:"]
    for group, option in ((group, choices.get(group)) for group in given.parts):
        if option is None:
            continue
        path = given.folders.groups[group].get(option)
        lines += ["", f"{group}={option}  {describe(path) if path else ''}".rstrip()]
        lines += [f"  {key:<30} {value:<12} {words}".rstrip() for key, value, words in about.rows(group, config[group])]
    lines += [
        "",
        f"ssl-{given.name} --help lists groups, options and the other keys; --cfg job prints the whole config.",
    ]
    return "\n".join(lines)


def composed(given: Given) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the composed config as it is written, and the chosen options."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    from sslcli.config.composed import CONFIGS, schema

    own, *more = (Path(path).absolute() for path in given.folders.paths)
    search = [f"hydra.searchpath=[{','.join(for_hydra('', path)[1:] for path in more)}]"] if more else []
    ConfigStore.instance().store(name="schema", node=schema(CONFIGS[given.name]))
    with initialize_config_dir(str(own), version_base="1.3"):
        config = compose(given.name, overrides=[*search, *given.overrides], return_hydra_config=True)
    plain: Any = OmegaConf.to_container(config, resolve=False)
    return plain, plain["hydra"]["runtime"]["choices"]


class About:
    """What is known of the keys of parts: from the comments in yaml files, else from the constructors' docstrings."""

    def __init__(self, given: Given, choices: Mapping[str, Any]) -> None:
        self.folders, self.choices = given.folders, choices
        self.of_command = explained(given.name) | comments(given.folders.paths[0] / f"{given.name}.yaml")

    def rows(self, group: str, node: Any, where: str = "") -> Iterator[tuple[str, str, str]]:
        """Iterate over key, value and explanation of a part and of the parts in it."""
        where = where or group
        if not isinstance(node, Mapping):
            return
        option = str(self.choices.get(group if where == group else f"{group}@{where}"))
        constructor = parameters(str(node.get("_target_", "")))
        for key, value in node.items():
            if isinstance(value, Mapping) and "_target_" in value:
                yield from self.rows(group, value, f"{where}.{key}")
            elif isinstance(value, Mapping) and key == "parts":
                for name, part in value.items():
                    yield from self.rows(group, part, f"{where}.{key}.{name}")
            elif key != "_target_":
                yield f"{where}.{key}", as_written(value), self._words(group, option, key, constructor)
        if node.get("_target_"):
            for key, parameter in constructor.items():
                if key not in node:
                    yield f"+{where}.{key}", parameter.default, _cut(parameter.text)

    def _words(self, group: str, option: str, key: str, constructor: Mapping[str, Parameter]) -> str:
        for path in self.folders.files(group, option):
            words = comments(path).get(key)
            if words:
                return words
        if key in constructor and constructor[key].text:
            return _cut(constructor[key].text)
        if f"{group}.{key}" in self.of_command:
            return self.of_command[f"{group}.{key}"]
        others = (comments(path).get(key) for path in self.folders.groups[group].values())
        return next(filter(None, others), "")


def _cut(words: str) -> str:
    return textwrap.shorten(words.removesuffix("."), _LONGEST, placeholder=" ...")
