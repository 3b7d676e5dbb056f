"""A command as the user gave it, before Hydra has composed anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sslcli.config.arguments import conf_dir, config_dir, overrides_of
from sslcli.config.composed import CONFIGS, leaves
from sslcli.config.options import Folders

GLOBAL = ("experiment", "debug")  # groups whose options change the whole config
_SEVERAL = "logger"  # a group of which several options can be chosen


@dataclass(frozen=True)
class Given:
    """The name of a command such as ``train``, its overrides, and the folders of yaml files."""

    name: str
    overrides: Sequence[str]
    folders: Folders

    @classmethod
    def read(cls, name: str, arguments: Sequence[str]) -> Given:
        """Read the arguments of the command line."""
        own = config_dir(list(arguments))
        folders = [Path(conf_dir()), *([Path(own)] if own else [])]
        return cls(name, overrides_of(list(arguments)), Folders(folders))

    @property
    def parts(self) -> list[str]:
        """The groups that choose one part of the config of this command, such as ``encoder``."""
        return [group for group in self.groups if group not in (*GLOBAL, _SEVERAL)]

    @property
    def groups(self) -> list[str]:
        """All groups of this command."""
        return list(self.folders.defaults(self.name))

    def value(self, key: str) -> str | None:
        """Return the value of an override as it is written, quotes included; None if the key is not given."""
        for override in self.overrides:
            name, equals, value = override.partition("=")
            if equals and name.lstrip("+") == key:
                return value
        return None

    def chosen(self) -> dict[str, str]:
        """Return the option of each part, as far as the overrides and the command's own defaults say."""
        given = {group: self.value(group) for group in self.parts}
        usual = {group: option for group, option in self.folders.defaults(self.name).items() if group in self.parts}
        return usual | {group: option for group, option in given.items() if option}

    def own_files(self) -> list[Path]:
        """Return the user's files of the options that the overrides name."""
        named = [(group, name) for group in self.groups for name in (self.value(group) or "").strip("[]").split(",")]
        files = [path for group, name in named for path in self.folders.files(group, name)]
        return [path for path in files if path in self.folders.own]

    def keys(self, choices: Mapping[str, str]) -> list[str]:
        """Return the keys of the fixed sections and of these options, those of fewer dots first."""
        inner = [f"{group}.{key}" for group, option in choices.items() for key in self.folders.keys(group, option)]
        return sorted({*dict(leaves(CONFIGS[self.name])), *inner}, key=lambda key: (key.count("."), key))
