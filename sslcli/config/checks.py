"""Checks of the fixed sections that types cannot express, made before torch is imported."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any

from sslcli.config.automatic import AUTO
from sslcli.config.choices import Choice
from sslcli.config.composed import TrainConfig
from sslcli.config.identity import LENGTH
from sslcli.config.ranges import check_number
from sslcli.errors import UserError, suggest


def settle_length(plain: dict[str, Any], overrides: Sequence[str]) -> None:
    """Keep one of train.steps, epochs and minutes, the one that the user gave or else the default; null the others.

    Args:
        plain: the config, changed in place.
        overrides: the overrides of the command line.

    Raises:
        UserError: the user gave several lengths, or the length is not positive and finite.
    """
    train = plain.get("train")
    if not isinstance(train, dict) or not set(LENGTH) <= set(train):
        raise UserError("train: this section is needed with all its keys; leave it as it is.")
    given = [key for key in LENGTH if any(o.lstrip("+").startswith(f"train.{key}=") for o in overrides)]
    given = [key for key in given if train[key] is not None]
    if len(given) > 1:
        raise UserError(f"train.{given[0]} and train.{given[1]} are both given. Choose one length for the run.")
    chosen = given or [key for key in LENGTH if train[key] is not None]
    if len(chosen) != 1:
        raise UserError("train: set exactly one of steps, epochs and minutes, and the others to null.")
    if not 0 < train[chosen[0]] < 1e12:
        raise UserError(f"train.{chosen[0]}={train[chosen[0]]} must be positive and finite.")
    for key in LENGTH:
        if key != chosen[0]:
            train[key] = None


def check_ranges(config: Any, where: str = "") -> None:
    """Check the numbers in the fixed sections of any command's config against the ranges in their annotations.

    Raises:
        UserError: a number is out of range; the message names the allowed values.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for name, value in vars(config).items():
        if is_dataclass(value) and not isinstance(value, Choice):
            check_ranges(value, f"{where}{name}.")
        else:
            check_number(f"{where}{name}", value, hints[name])


def check(config: TrainConfig) -> None:
    """Check what the values of the fixed sections must be together, and the words in them.

    Raises:
        UserError: a value is out of range; the message names the allowed values.
    """
    train, save = config.train, config.checkpoint
    if isinstance(train.accumulate, str) and train.accumulate != AUTO:
        raise UserError(f"train.accumulate='{train.accumulate}' is neither a whole number nor auto.")
    pieces = 1 if isinstance(train.accumulate, str) else train.accumulate
    if train.batch_size % pieces:
        raise UserError(
            f"train.accumulate={train.accumulate} does not divide train.batch_size={train.batch_size}. Give a divisor."
        )
    _check_num(config, pieces)
    for path, word, known in (
        ("train.stop_on", train.stop_on, (None, "collapse")),
        ("train.precision", train.precision, ("auto", "fp32", "bf16", "fp16")),
        ("train.recompute", train.recompute, ("none", "blocks")),
        ("device.strategy", config.device.strategy, ("auto", "ddp")),
        ("log.quality", config.log.quality, ("none", "basic", "full")),
    ):
        if word not in known:
            raise UserError(f"{path}: there is no '{word}'. {suggest(str(word), [w for w in known if w])}")
    if save.keep_best is not None and config.probe.every is None:
        raise UserError(f"checkpoint.keep_best={save.keep_best} is measured while training: set probe.every=STEPS.")
    if config.probe.patience is not None and save.keep_best is None:
        patience = config.probe.patience
        raise UserError(f"probe.patience={patience} needs a metric: set checkpoint.keep_best, e.g. to rankme.")


def _check_num(config: TrainConfig, pieces: int) -> None:
    train, num = config.train, config.device.num
    if isinstance(num, str) and num != "all":
        raise UserError(f"device.num='{num}' is neither a whole number nor all.")
    if isinstance(num, int) and train.batch_size % (num * pieces):
        raise UserError(
            f"device.num={num} processes and train.accumulate={train.accumulate} do not divide "
            f"train.batch_size={train.batch_size}. Give a multiple of {num * pieces}."
        )
