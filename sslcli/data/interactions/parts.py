"""Divides interactions into training, validation and test, each user's own: at random, by time, or the last two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sslcli.data.interactions.log import Log
from sslcli.errors import UserError

How = Literal["random", "time", "leave_one_out"]
TRAIN, VALIDATION, TEST, NONE = range(4)
FEWEST = 3  # interactions of a user who has some in each part


@dataclass(frozen=True)
class Divided:
    """Interactions with their parts.

    Args:
        log: sorted by user, those of a user in the order of histories.
        parts: (N,) the part of each.
        how: how they were divided, in words.
        left: what is in no part, or wholly in training, counted, in words.
    """

    log: Log
    parts: np.ndarray
    how: str
    left: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return how many interactions are in each part, and what is left."""
        words = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
        counts = ", ".join(f"{word} {int((self.parts == part).sum()):,}" for part, word in words.items())
        return "; ".join([f"{self.how}: {counts}", *self.left])


def divided(log: Log, how: How, seed: int, source: str) -> Divided:
    """Divide a log.

    Raises:
        UserError: there are no times to divide by, or no user has enough interactions.
    """
    if how != "random" and log.time is None:
        raise UserError(
            f"dataset.split={how} needs times, and no column of {source} is read as such. Name it, "
            "dataset.time=COLUMN, or set dataset.split=random."
        )
    log = log.at(log.order(seed, by_time=how != "random"))
    parts, few = divide(log, how)
    if not (parts == TEST).any():
        raise UserError(
            f"dataset.path: no user of {source} has {FEWEST} interactions or more, so none can be held out. Are "
            "dataset.user and dataset.item the right columns?"
        )
    order = log.order(seed, by_time=True)
    cut = {
        "random": f"8:1:1 by user, at random with seed {seed}",
        "time": "8:1:1 by user, by time",
        "leave_one_out": "the last two of each user held out, by time",
    }
    left = (f"{few:,} users with fewer than {FEWEST} interactions wholly in train",) if few else ()
    return Divided(log.at(order), parts[order], cut[how], left)


def divide(log: Log, how: How) -> tuple[np.ndarray, int]:
    """Return the part of each interaction (N,), and the number of users who are wholly in training.

    The first 80 % of a user's interactions are for training, the next 10 % for validation, the last 10 % for the test;
    both are rounded down, but have at least one. With ``leave_one_out`` both have one. A user with fewer than three
    interactions is wholly in training.

    Args:
        log: sorted by user, and those of a user in the order in which they are cut.
        how: ``random``, ``time`` or ``leave_one_out``.
    """
    counts = np.bincount(log.user, minlength=len(log.users))
    held_out = np.where(counts < FEWEST, 0, 1 if how == "leave_one_out" else np.maximum(counts // 10, 1))
    ends = counts.cumsum()
    from_end = ends[log.user] - np.arange(len(log))  # 1 for a user's last
    each = held_out[log.user]
    parts = np.select([from_end <= each, from_end <= 2 * each], [TEST, VALIDATION], TRAIN)
    return parts, int(((counts > 0) & (counts < FEWEST)).sum())
