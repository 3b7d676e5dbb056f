"""Composes the config of ``ssl-train`` again by other overrides, while Hydra runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sslcli.config.arguments import key_of
from sslcli.config.composed import TrainConfig, resolved


def composed_again(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the plain config of these overrides."""
    from hydra import compose

    return resolved(compose("train", list(overrides)), TrainConfig)


def views_with(overrides: Sequence[str], option: str) -> Any:
    """Return the section ``views`` as it is with another ``option``, under the keys in it that the user gave."""
    others = [override for override in overrides if key_of(override) != "views"]
    return composed_again([*others, f"views={option}"])["views"]
