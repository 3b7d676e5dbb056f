"""Finds the columns of a table of interactions, and reads them as a log: what is kept, and what is left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sslcli.data.base import Notes
from sslcli.data.interactions.ids import as_ids, mixture, numbered
from sslcli.data.interactions.log import Log
from sslcli.data.interactions.measures import ranks_of_times, ratings
from sslcli.data.interactions.table import Table, read_table
from sslcli.errors import UserError, suggest

NONE = "none"
# Usual names in small letters, without blanks, dashes and underscores: MovieLens, Amazon, RecBole, logs of shops
USUAL = {
    "user": ("user", "userid", "uid", "reviewerid", "visitorid", "customerid", "customer"),
    "item": ("item", "itemid", "iid", "movieid", "productid", "parentasin", "asin", "businessid", "bookid", "songid"),
    "time": ("time", "timestamp", "unixreviewtime", "unixtime", "ts", "datetime", "date"),
    "rating": ("rating", "score", "overall", "stars"),
}


def read_log(
    path: Path, names: Mapping[str, str | None], min_rating: float | None, core: int | None
) -> tuple[Log, Notes]:
    """Read the interactions of a table, and say what is left out.

    Rows without a user, an item or a time, or rated below ``min_rating``, are left out first; then all but the first of
    equal pairs; then users and items outside of the core.

    Args:
        path: the file.
        names: the column of each of user, item, time and rating; None is the first of the usual names that it has, and
            ``none`` reads no times.
        min_rating: the least rating of an interaction; None reads no ratings.
        core: the least number of interactions of a user and of an item; None keeps all.

    Raises:
        UserError: a column is missing or has other values, or nothing is left.
    """
    table = read_table(path)
    columns = {role: _named(table, role, names.get(role)) for role in USUAL}
    found: dict[str, np.ndarray] = {}
    ids: dict[str, tuple[str, ...]] = {}
    for role in ("user", "item"):
        column = table.column(str(columns[role]))
        ids[role], found[role] = numbered(as_ids(column, f"dataset.{role}"), column.codes)
    time = None if columns["time"] is None else ranks_of_times(table.column(columns["time"]))
    out = {f"without {word}": found[role] < 0 for role, word in (("user", "a user"), ("item", "an item"))}
    if time is not None:
        out["without a time"] = time < 0
    if min_rating is not None:
        if columns["rating"] is None:
            raise UserError(f"dataset.min_rating: {path} has no column of ratings. {_hint('rating', table)}")
        rated = ratings(table.column(columns["rating"]))
        out["without a rating"] = np.isnan(rated)
        out[f"rated below {min_rating:g}"] = rated < min_rating
    log = Log(ids["user"], ids["item"], found["user"], found["item"], time)
    return _kept(log, table, columns, out, core, min_rating)


def _kept(
    log: Log,
    table: Table,
    columns: Mapping[str, str | None],
    out: Mapping[str, np.ndarray],
    core: int | None,
    min_rating: float | None,
) -> tuple[Log, Notes]:
    stay = np.ones(table.count, bool)
    left_out = []
    for why, rows in out.items():
        count = int((rows & stay).sum())
        left_out += [f"{count:,} {why}"] if count else []
        stay &= ~rows
    if not stay.any():
        key = "dataset.min_rating" if min_rating is not None else "dataset.path"
        raise UserError(f"{key}: none of the {table.count:,} rows of {table.source} is left: {', '.join(left_out)}.")
    log = log.at(stay)
    once = log.once()
    if len(once) < len(log):
        which = "all but the first by time" if log.time is not None else "copies"
        left_out.append(f"{len(log) - len(once):,} {which} of pairs that are there twice")
    if core is not None:
        kept = once.core(core)
        if not len(kept):
            raise UserError(
                f"dataset.core: no user and item of {table.source} are left with {core} interactions or more each, of "
                f"{len(once):,} interactions. Lower it."
            )
        left_out += [f"{len(once) - len(kept):,} outside of the {core}-core"] if len(kept) < len(once) else []
        once = kept
    read = ", ".join(
        f"{role} '{name}'" for role, name in columns.items() if name and (role != "rating" or min_rating is not None)
    )
    notes = [("rows", f"{table.count:,} of {Path(table.source).name}: {read}")]
    notes += [("left out", f"{', '.join(left_out)}; {len(once):,} interactions are left")] if left_out else []
    for names, word in ((log.users, "users"), (log.items, "items")):
        notes += [("ids", f"of {word} {mixed}")] if (mixed := mixture(names)) else []
    for number, word in ((once.user, "user"), (once.item, "item")):
        if number.min() == number.max():
            raise UserError(
                f"dataset.{word}: {table.source} has one {word} only, in the column '{columns[word]}': "
                "there is nothing to rank. Name another column, or give more data."
            )
    return once, tuple(notes)


def _named(table: Table, role: str, given: str | None) -> str | None:
    if given == NONE and role == "time":
        return None
    if given is not None:
        if given not in table.names:
            raise UserError(f"dataset.{role}: {table.source} has no column '{given}'. {suggest(given, table.names)}")
        return given
    found = usual_column(role, table.names)
    if found is None and role in ("user", "item"):
        raise UserError(f"dataset.{role}: {table.source} has no column of a usual name. {_hint(role, table)}")
    return found


def usual_column(role: str, names: Sequence[str]) -> str | None:
    """Return the first of some columns that has a usual name for users, items, times or ratings; None if none has."""
    plain = {_plain(name): name for name in reversed(names)}
    return next((plain[name] for name in USUAL[role] if name in plain), None)


def _hint(role: str, table: Table) -> str:
    return f"Name it, dataset.{role}=COLUMN. {suggest(role, table.names)}"


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
