"""Divides interactions as a file says, which somebody else has made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sslcli.data.interactions.coded import Coded
from sslcli.data.interactions.ids import as_ids
from sslcli.data.interactions.log import Log
from sslcli.data.interactions.parts import NONE, TEST, TRAIN, VALIDATION, Divided
from sslcli.data.vectors.table import array_of, load_arrays
from sslcli.errors import UserError, one_line, suggest

_KEYS = {"train": TRAIN, "valid": VALIDATION, "test": TEST}


def divided_as(log: Log, path: Path, seed: int) -> Divided:
    """Divide a log as a file says, in which the order of rows says nothing.

    The file is NumPy's .npz with the arrays ``train``, ``test`` and perhaps ``valid``, (N, 2) each: the ids of a user
    and of an item, as texts or whole numbers.

    Args:
        log: the interactions.
        path: the file.
        seed: of the order of a user's interactions of one time.

    Raises:
        UserError: the file cannot be read, has other arrays, a pair in two parts, or no training pair of the log.
    """
    log = log.at(log.order(seed, by_time=True))
    width = len(log.items)
    rows = {key: i for i, key in enumerate((log.user * width + log.item).tolist())}
    users, items = ({name: i for i, name in enumerate(ids)} for ids in (log.users, log.items))
    parts = np.full(len(log), NONE)
    absent = 0
    for key, pairs in _read(path).items():
        for user, item in zip(*pairs):
            is_known = user in users and item in items
            row = rows.get(users[user] * width + items[item]) if is_known else None
            if row is None:
                absent += 1
            elif parts[row] not in (NONE, _KEYS[key]):
                raise UserError(
                    f"dataset.split_from: {path} has user '{one_line(user)}' with item '{one_line(item)}' in two "
                    f"parts, {key} and another. Take it out of one: a held-out pair must not be trained on."
                )
            else:
                parts[row] = _KEYS[key]
    if not (parts == TRAIN).any():
        raise UserError(
            f"dataset.split_from: none of the pairs in 'train' of {path} is in the data, whose first pair is user "
            f"'{one_line(log.users[log.user[0]])}' with item '{one_line(log.items[log.item[0]])}'. Write the ids as "
            "they are there."
        )
    counts = {
        f"pairs of {path.name} are not in the data": absent,
        "interactions are in no part and left out": int((parts == NONE).sum()),
    }
    left = tuple(f"{count:,} {words}" for words, count in counts.items() if count)
    return Divided(log, parts, f"as {path.name} says", left)


def _read(path: Path) -> dict[str, tuple[list[str], list[str]]]:
    arrays = load_arrays(path, "dataset.split_from")
    if not hasattr(arrays, "files"):
        raise UserError(f"dataset.split_from: {path} is one array. Save three: np.savez(FILE, train=, valid=, test=).")
    with arrays:
        for key in arrays.files:
            if key not in _KEYS:
                raise UserError(f"dataset.split_from: {path} has an array '{one_line(key)}'. {suggest(key, _KEYS)}")
        for key in ("train", "test"):
            if key not in arrays.files:
                raise UserError(f"dataset.split_from: {path} has no array '{key}'. It has: {', '.join(arrays.files)}.")
        return {key: _pairs(array_of(arrays, key, path, "dataset.split_from"), key, path) for key in arrays.files}


def _pairs(array: np.ndarray, key: str, path: Path) -> tuple[list[str], list[str]]:
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iufUS":
        raise UserError(
            f"dataset.split_from: '{key}' of {path} is {array.dtype} of shape {list(array.shape)}, and pairs are "
            "(N, 2): the ids of a user and of an item, as texts or whole numbers."
        )
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    columns = (_texts(array[:, i], f"{key}[:, {i}]", path) for i in (0, 1))
    return next(columns), next(columns)


def _texts(values: np.ndarray, name: str, path: Path) -> list[str]:
    column: list[Any] = [value.strip() if isinstance(value, str) else value for value in values.tolist()]
    coded = Coded.of(name, column, lambda i: f"{path}, row {i}")
    texts = as_ids(coded, "dataset.split_from")
    return [texts[code] for code in coded.codes]
