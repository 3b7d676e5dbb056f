"""``dataset=interactions``: a table of users and items, divided, and what is fitted on its training part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sslcli.config.paths import expand
from sslcli.config.ranges import Count
from sslcli.data.base import Dataset, Notes
from sslcli.data.fingerprints import LIMIT, of_files
from sslcli.data.interactions.features import Features, HowRead, check_named, features_of
from sslcli.data.interactions.given_split import divided_as
from sslcli.data.interactions.ids import NAME, Ids
from sslcli.data.interactions.parts import TEST, TRAIN, VALIDATION, Divided, How, divided
from sslcli.data.interactions.rankings import Asked, Known, before, rankings
from sslcli.data.interactions.reading import read_log
from sslcli.data.interactions.samples import Histories, Pairs, spec_of_histories, spec_of_pairs
from sslcli.errors import UserError, one_line
from sslcli.graph import FEATURES, Graph, Lists
from sslcli.run_dir.fitted import FACTS, Fitted
from sslcli.types import Spec

Part = Literal["test", "validation"]
Sample = Literal["pair", "history"]
_PARTS = {"test": TEST, "validation": VALIDATION}


def interactions(
    *,
    path: str,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    rating: str | None = None,
    min_rating: float | None = None,
    core: Count | None = None,
    split: How = "random",
    split_from: str | None = None,
    seed: int = 0,
    part: Part = "test",
    sample: Sample = "pair",
    length: Count = 50,
    user_features: str | None = None,
    item_features: str | None = None,
    ignore: list[str] | None = None,
    categories: list[str] | None = None,
    missing: list[str] | None = None,
) -> Dataset:
    """Make a dataset of the interactions in a table.

    Args:
        path: a .csv or .tsv file with a header, RecBole's .inter or a .parquet file, with one interaction a row.
        user: the column of users; None finds one of a usual name, such as ``user_id``.
        item: the column of items; None finds one.
        time: the column of times; None finds one, if there is one; ``none`` reads none.
        rating: the column that ``min_rating`` is compared with; None finds one.
        min_rating: interactions with a lower rating are left out; None reads no ratings.
        core: users and items with fewer interactions are left out until none is; None keeps all.
        split: how each user's interactions are divided 8:1:1: ``random``, by ``time``, or ``leave_one_out``, by time
            with the last one for the test and the one before for validation.
        split_from: an .npz file with the arrays ``train``, ``valid`` and ``test`` of pairs of ids instead.
        seed: of the order at random.
        part: the held-out part that probes query: ``test``, whose users have seen the validation part, too, or
            ``validation``.
        sample: ``pair``, one interaction, or ``history``, a user with the items in order of time.
        length: of a history; the last items of longer ones are read.
        user_features: a table with a row for each user, for ``encoder=towers``: a .csv, .tsv or .parquet file, or
            RecBole's .user.
        item_features: the same for items; or RecBole's .item.
        ignore: columns of features that are not read.
        categories: columns of features that are names of categories, where these are numbers.
        missing: further words for a missing value of a feature.
    """
    place = expand(path)
    how = HowRead(ignore or (), categories or (), missing or ())
    features = features_of(how, {"user": (user_features, user), "item": (item_features, item)})
    names = {"user": user, "item": item, "time": time, "rating": rating}
    log, notes = read_log(place, names, min_rating, core)
    if split_from is None:
        return Interactions(divided(log, split, seed, str(place)), notes, [place], part, sample, length, features)
    file = expand(split_from)
    return Interactions(divided_as(log, file, seed), notes, [place, file], part, sample, length, features)


class Interactions(Dataset):
    """Interactions that are read and divided, whose ids are not numbered yet; ``interactions`` describes the rest."""

    in_memory = True

    def __init__(
        self,
        divided: Divided,
        notes: Notes,
        files: Sequence[Path],
        part: Part,
        sample: Sample,
        length: int,
        features: Sequence[Features] = (),
    ) -> None:
        self.spec, self.divided, self.files, self.features = Spec(), divided, files, features
        self.part, self.histories, self.length = part, sample == "history", length
        if not (divided.parts == _PARTS[part]).any():
            raise UserError(f"dataset.part={part}: no interaction is in this part ({divided}).")
        self.notes = (*notes, ("split", str(divided)))

    def __len__(self) -> int:
        train = self.divided.parts == TRAIN
        return len(np.unique(self.divided.log.user[train])) if self.histories else int(train.sum())

    def fingerprint(self, limit: int = LIMIT) -> str:
        words = "".join(f" with {each.role} features" for each in self.features)
        files = [*self.files, *(each.path for each in self.features)]
        return f"{len(self.divided.log)} interactions{words}, {of_files(files, limit)}"

    def fit(self, files: Fitted) -> Dataset:
        """Return the samples, by the numbers that the run has given to users and items, or that are given now."""
        ids = Ids.of_file(files.file(NAME, lambda: self._ids().to_file()))
        log, part = self.divided.log, _PARTS[self.part]
        user = _numbers(log.users, ids.number_of_user)[log.user]
        item = _numbers(log.items, ids.number_of_item)[log.item]
        columns = {of.role: files.file(of.file, partial(of.fit, ids.of(of.role))) for of in self.features}
        facts = files.tensors(FACTS, lambda: self._facts(ids, user, item, columns))
        by_user = np.argsort(user, kind="stable")  # the run may have other numbers than these data
        known = Known(user[by_user], item[by_user], self.divided.parts[by_user], Graph.of(Spec(facts=facts)))
        train = known.in_parts(TRAIN)
        if not train.any():
            raise self._strangers(ids, "training", TRAIN)
        asked = Asked.of(known, part, self.histories)
        if not len(asked.rows):
            raise self._strangers(ids, self.part, part)
        spec = spec_of_histories(ids, self.length, facts) if self.histories else spec_of_pairs(ids, facts)
        asks = "; ".join([f"{len(asked.rows):,} pairs of {len(asked.users):,} users", *asked.lines])
        if self.histories:
            earlier = known.in_parts(*before(part)) & np.isin(known.user, asked.users)
            made, held_out = (_histories(spec, ids, known, rows) for rows in (train, earlier))
        else:
            made, held_out = (_pairs(spec, ids, known, rows) for rows in (np.flatnonzero(train), asked.rows))
        held_out.rankings = rankings(known, asked, part, self.histories, f"{self.divided}; {self.part} part: {asks}")
        made.held_out = held_out
        graph = f"{len(ids.users):,} users and {len(ids.items):,} items in training"
        unseen = f"; {asked.unseen:,} more with items that training never saw" if asked.unseen else ""
        unseen += f", and {asked.lost:,} users have no other, which counts as 0" if asked.lost else ""
        of_features = (note for each in self.features for note in each.notes)
        made.notes = (*self.notes, ("graph", graph), *of_features, (self.part, asks + unseen))
        return made

    def _ids(self) -> Ids:
        log, train = self.divided.log, self.divided.parts == TRAIN
        users, items = (np.unique(numbers[train]) for numbers in (log.user, log.item))
        return Ids(tuple(log.users[i] for i in users), tuple(log.items[i] for i in items))

    def _facts(
        self, ids: Ids, user: np.ndarray, item: np.ndarray, columns: Mapping[str, bytes]
    ) -> Mapping[str, Tensor]:
        train = self.divided.parts == TRAIN
        pairs = (torch.from_numpy(numbers[train]) for numbers in (user, item))
        features = {FEATURES[of.role]: of.vectors(ids.of(of.role), columns[of.role]) for of in self.features}
        check_named(self.features)
        return {**Graph.facts(len(ids.users), len(ids.items), *pairs), **features}

    def _strangers(self, ids: Ids, name: str, part: int) -> UserError:
        log, i = self.divided.log, int(np.argmax(self.divided.parts == part))
        user, item = one_line(log.users[log.user[i]]), one_line(log.items[log.item[i]])
        return UserError(
            f"dataset.path: no {name} pair has a user and an item that training knows: it has user '{user}' and item "
            f"'{item}', training has user '{one_line(ids.users[0])}' and item '{one_line(ids.items[0])}'. Are ids "
            "written in two ways, or all of these items new?"
        )


def _numbers(names: Sequence[str], known: Mapping[str, int]) -> np.ndarray:
    return np.array([known.get(name, -1) for name in names], np.int64)


def _pairs(spec: Spec, ids: Ids, known: Known, rows: np.ndarray) -> Dataset:
    rows = rows[np.lexsort((known.item[rows], known.user[rows]))]
    return Pairs(spec, ids, torch.from_numpy(known.user[rows]), torch.from_numpy(known.item[rows]))


def _histories(spec: Spec, ids: Ids, known: Known, rows: np.ndarray) -> Dataset:
    users, lengths = np.unique(known.user[rows], return_counts=True)
    starts = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]))
    return Histories(spec, ids, torch.from_numpy(users), Lists(starts, torch.from_numpy(known.item[rows])))
