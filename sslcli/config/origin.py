"""The config of a run after composition: every default settled and checked, and where its values come from."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sslcli.config.automatic import settle
from sslcli.config.checks import check, check_ranges, settle_length
from sslcli.config.composed import TrainConfig, read
from sslcli.config.recipe import Recipe, recipe_of
from sslcli.config.recompose import views_with


@dataclass(frozen=True)
class Origin:
    """Where the values of a config come from.

    Args:
        choices: the chosen option of each config group, for the name of the default run directory.
        automatic: what ``auto`` stands for, in words for the start lines.
        overrides: those of the command line.
    """

    choices: Mapping[str, str] = field(default_factory=dict)
    automatic: Sequence[str] = ()
    overrides: Sequence[str] = ()

    @property
    def recipe(self) -> Recipe | None:
        """The chosen experiment, as it is without the user's changes; Hydra must be running."""
        return recipe_of(self.overrides)


def settled(
    plain: dict[str, Any], overrides: Sequence[str], choices: Mapping[str, str]
) -> tuple[TrainConfig, list[str]]:
    """Return the typed config, and what ``auto`` stands for in it, in words. Hydra must be running.

    Args:
        plain: the composed config, changed in place.
        overrides: the overrides of the command line.
        choices: the chosen option of each config group.

    Raises:
        UserError: a value is of the wrong type or out of range, or values do not go together.
    """
    automatic = settle(plain, choices.get("views"), functools.partial(views_with, overrides))
    settle_length(plain, overrides)
    config = read(plain, TrainConfig)
    check_ranges(config)
    check(config)
    return config, automatic
