"""The recipe that a run starts from: the chosen experiment, composed without what else the user has given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sslcli.config.arguments import key_of
from sslcli.config.automatic import settle
from sslcli.config.composed import TrainConfig, read
from sslcli.config.recompose import composed_again


@dataclass(frozen=True)
class Recipe:
    """An experiment's name, and its config."""

    name: str
    config: TrainConfig


def recipe_of(overrides: Sequence[str]) -> Recipe | None:
    """Compose the experiment among the overrides alone, in Hydra's running job; None if there is no experiment."""
    chosen = [override for override in overrides if key_of(override) == "experiment"]
    if not chosen or chosen[0].endswith("=null"):
        return None
    plain = composed_again(chosen)
    settle(plain, None, lambda option: {})  # its views do not matter here
    config = read(plain, TrainConfig)
    return Recipe(chosen[0].partition("=")[2], config)
