"""Reads the JSON files of a run, which may be cut short, damaged or somebody else's, by the dataclass of their kind."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli.config.composed import read
from sslcli.errors import UserError
from sslcli.run_dir import inside
from sslcli.run_dir.console import Console
from sslcli.run_dir.formatting import first_line

_LONGEST = 18  # digits of a whole number: it is to fit into 64 bits
_LARGEST = 1e100  # no measured number is larger, and this one can still be scaled and squared


@dataclass(kw_only=True)
class JsonFile:
    """The schema of one kind of file: the fields that are read later. Others are kept as they are."""

    @classmethod
    def up_to_date(cls, found: dict[str, Any]) -> dict[str, Any]:
        """Return what an older version wrote as this one would write it."""
        return found


def loads(content: bytes | str, kind: type[JsonFile]) -> dict[str, Any]:
    """Return the mapping in a JSON text after comparing it with its schema.

    Args:
        content: the text. Numbers that are not finite, which JSON does not have, or huge become None.
        kind: the schema.

    Raises:
        ValueError: it is not JSON, names a key twice, or has other types than ``kind``; the message says where.
    """
    try:
        found = json.loads(
            content, object_pairs_hook=_once, parse_constant=lambda _: None, parse_int=_whole, parse_float=_finite
        )
        if not isinstance(found, dict):
            raise ValueError("it is not a mapping")
        found = kind.up_to_date(found)
        read(found, kind)
    except (UserError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(first_line(error)) from None
    return found


def side_file(run_dir: Path, name: str, kind: type[JsonFile]) -> dict[str, Any] | None:
    """Return the content of a file that a command can do without; None if there is none.

    A file that is damaged, or not of this kind, is left out with a warning.

    Raises:
        UserError: the file cannot be read.
    """
    content = inside.read(run_dir, name)
    if content is None:
        return None
    try:
        return loads(content, kind)
    except ValueError as error:
        Console().warn(f"{run_dir / name} is damaged and left out: {error}")
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST + 1:
        raise ValueError("a number has too many digits")
    return int(digits)


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if abs(value) <= _LARGEST else None
