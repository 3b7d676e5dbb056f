"""Composes a command's config again with another option of a group, while Hydra runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sslcli.config.composed import CONFIGS, resolved


def section_with(name: str, overrides: Sequence[str], group: str, option: str) -> Any:
    """Return the section of a group as it is with ``option``, under the keys in it that the user gave.

    Args:
        name: the config, such as ``train``.
        overrides: the overrides of the command line; one that chooses the group's option is replaced.
        group: the group.
        option: one of its options.
    """
    from hydra import compose

    others = [override for override in overrides if override.partition("=")[0].lstrip("+") != group]
    return resolved(compose(name, [*others, f"{group}={option}"]), CONFIGS[name])[group]
