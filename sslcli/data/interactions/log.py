"""The interactions that a table holds: each pair of a user and an item once, in an order that no row order changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sslcli.randomness import fold, mix


@dataclass(frozen=True)
class Log:
    """Interactions of users with items.

    Args:
        users: the users' ids; a user's number is the place.
        items: the items' ids.
        user: (N,) int64, the number of each interaction's user.
        item: (N,) int64, that of its item.
        time: (N,) int64, the rank of its time; None if no times are known.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None

    def __len__(self) -> int:
        return len(self.user)

    def at(self, rows: np.ndarray) -> Log:
        """Return the interactions at ``rows`` only, positions or bool; ids keep their numbers."""
        return replace(
            self, user=self.user[rows], item=self.item[rows], time=None if self.time is None else self.time[rows]
        )

    def once(self) -> Log:
        """Return each pair of a user and an item once: the first by time."""
        time = np.zeros(len(self), np.int64) if self.time is None else self.time
        order = np.lexsort((time, self.item, self.user))
        user, item = self.user[order], self.item[order]
        first = np.ones(len(order), bool)
        first[1:] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
        return self.at(order[first])

    def core(self, least: int) -> Log:
        """Return what is left when users and items with fewer than ``least`` interactions are taken out until none is.

        That is the k-core of the graph, which does not depend on the order in which they are taken out.
        """
        log = self
        while len(log):
            users, items = np.bincount(log.user), np.bincount(log.item)
            stay = (users[log.user] >= least) & (items[log.item] >= least)
            if stay.all():
                break
            log = log.at(stay)
        return log

    def drawn(self, seed: int) -> np.ndarray:
        """Return a random number of each interaction, (N,) uint64: a hash of the seed, the user's and the item's id."""
        of_user, of_item = hashes(self.users), hashes(self.items)
        return mix(mix(of_user ^ np.uint64(fold(seed, "interactions")))[self.user] ^ of_item[self.item])

    def order(self, seed: int, *, by_time: bool) -> np.ndarray:
        """Return the positions (N,) of the interactions by user, those of each user by time or at random.

        Interactions of one time are in random order. No order of rows plays a part.
        """
        time = self.time if by_time and self.time is not None else np.zeros(len(self), np.int64)
        return np.lexsort((self.item, self.drawn(seed), time, self.user))


def hashes(ids: Sequence[str]) -> np.ndarray:
    """Return a hash of each text, (N,) uint64."""
    digests = (hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in ids)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
