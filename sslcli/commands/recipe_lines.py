"""The start lines of a run whose batch is far below its recipe's: the learning rate, and the way to that batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sslcli.config.composed import TrainConfig
from sslcli.config.recipe import Recipe
from sslcli.training.optim import scaled_lr

FAR = 4  # times below the recipe's own batch


def recipe_lines(config: TrainConfig, recipe: Recipe | None, batch: int, rate: float) -> list[str]:
    """Return two lines if ``batch`` is at least 4 times below the recipe's own, else none.

    Args:
        config: the run's config.
        recipe: the recipe as it is without the user's changes; None without one.
        batch: the run's batch.
        rate: the run's full learning rate, after scaling.
    """
    if recipe is None or recipe.config.train.batch_size < FAR * batch:
        return []
    own = recipe.config.train.batch_size
    words = _rate_in_words(config.optimizer.node, recipe.config.optimizer.node, rate, batch, own)
    pieces, rest = divmod(own * config.train.num_micro, batch)
    way = "" if rest else f"; in pieces: train.batch_size={own} train.accumulate={pieces}"
    return [f"batch {batch}, {recipe.name} has {own}: {words}", f"published results need not hold{way}"]


def _rate_in_words(node: Mapping[str, Any], recipe: Mapping[str, Any], rate: float, batch: int, own: int) -> str:
    if not all(isinstance(recipe.get(key), int | float) for key in ("lr", "base_batch")):  # an optimizer of the user's
        return f"learning rate {rate:.3g}"
    there = scaled_lr(recipe["lr"], recipe["scale"], own, recipe["base_batch"])
    if dict(node) != dict(recipe):
        return f"learning rate {rate:.3g}, its own is {there:.3g}"
    if node["scale"] == "none":
        return f"learning rate {rate:.3g} is not scaled; linear scaling gives {there * batch / own:.3g}"
    return f"learning rate {there:.3g} scaled to {rate:.3g}"
