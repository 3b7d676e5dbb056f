"""Ids of users and items: texts in the data, numbers in a model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sslcli.data.interactions.coded import Coded
from sslcli.errors import UserError, one_line

NAME = "ids.json"  # in the run's folder of fitted files
_WHOLE = re.compile(r"-?[0-9]{1,30}")
_WHOLE_FLOAT = re.compile(r"(-?[0-9]{1,30})\.0*")
_EXACT = 2**53  # from here on, floats leave whole numbers out


@dataclass(frozen=True)
class Ids:
    """The users and items that a run knows: the number of each is its place.

    Args:
        users: ids as texts.
        items: the same.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]

    def to_file(self) -> bytes:
        """Return the content of ``ids.json``."""
        plain = {"users": self.users, "items": self.items}
        return f"{json.dumps(plain, indent=0, ensure_ascii=False)}\n".encode("utf-8", "surrogatepass")

    @classmethod
    def of_file(cls, content: bytes) -> Ids:
        """Read that content."""
        plain = json.loads(content.decode("utf-8", "surrogatepass"))
        return cls(tuple(plain["users"]), tuple(plain["items"]))

    def of(self, role: str) -> tuple[str, ...]:
        """Return the users if ``role`` is ``user``, else the items."""
        return self.users if role == "user" else self.items

    @cached_property
    def number_of_user(self) -> dict[str, int]:
        """The number of each user."""
        return {name: number for number, name in enumerate(self.users)}

    @cached_property
    def number_of_item(self) -> dict[str, int]:
        """The number of each item, from 0; its node has the number of users more."""
        return {name: number for number, name in enumerate(self.items)}


def in_order(ids: Sequence[str]) -> list[str]:
    """Return different ids in an order of their own: whole numbers by their value, then other texts."""
    return sorted(ids, key=lambda name: (0, int(name), name) if _WHOLE.fullmatch(name) else (1, 0, name))


def mixture(ids: Sequence[str]) -> str:
    """Return how many of some ids are whole numbers and how many are not, in words; "" unless there are both."""
    whole = sum(_WHOLE.fullmatch(name) is not None for name in ids)
    other = next((name for name in ids if not _WHOLE.fullmatch(name)), "")
    return (
        f"{whole:,} whole numbers and {len(ids) - whole:,} others, such as '{one_line(other)[:40]}'"
        if whole and other
        else ""
    )


def as_ids(column: Coded, key: str) -> list[str]:
    """Return the different values of a column of ids as texts.

    An id is a text. Whole numbers are one id in any format: 1, ``"1"``, and 1.0 in a column in which all ids are whole,
    as a column of numbers becomes one of floats where a value was missing.

    Args:
        column: the column.
        key: the config path, for messages.

    Raises:
        UserError: a value is no text and no whole number.
    """
    texts = [_as_text(value, k, column, key) for k, value in enumerate(column.values)]
    floats = [_WHOLE_FLOAT.fullmatch(text) for text in texts]
    if any(floats) and all(found or _WHOLE.fullmatch(text) for found, text in zip(floats, texts)):
        return [found[1] if found else text for found, text in zip(floats, texts)]
    return texts


def _as_text(value: Any, k: int, column: Coded, key: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        kind = type(value).__name__
    elif isinstance(value, int) or (value.is_integer() and abs(value) < _EXACT):
        return str(int(value))
    else:
        kind = "float that holds no whole number exactly"
    raise UserError(
        f"{key}: {column.where(k)} has '{one_line(str(value))[:40]}' in the column '{column.name}', a {kind}, and ids "
        "are texts or whole numbers. Convert the column to texts."
    )


def numbered(texts: Sequence[str], codes: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Return different ids in their order, and the number (N,) of each row's id, -1 for a missing one.

    Args:
        texts: the ids (K,), some perhaps twice.
        codes: (N,) the place of each row's id in ``texts``, -1 for a missing one.
    """
    ids = in_order(list({*texts}))
    number = {name: i for i, name in enumerate(ids)}
    return tuple(ids), np.array([*(number[text] for text in texts), -1], np.int64)[codes]
