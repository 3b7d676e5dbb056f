"""Finds the files that ``dataset.path`` gives: by a folder, a pattern, or a list in braces."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from sslcli.errors import UserError


def find(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files that ``path`` gives, sorted by path.

    Args:
        path: a folder, which is searched with all sub-folders for files with one of ``suffixes``; a file; a pattern
            such as ``data/*.tar``; or a list such as ``data/{000..009}.tar``.
        suffixes: suffixes of the files in a folder; error messages name the first one.

    Raises:
        UserError: there is no such file.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        found = [file for file in place.rglob("*") if file.name.endswith(suffixes) and file.is_file()]
        if not found:
            raise UserError(f"dataset.path: there is no {suffixes[0]} file below {place}.")
        return sorted(found)
    names = [place] if place.is_file() else [Path(name).expanduser() for name in expand(path)]
    if any(re.search(r"[*?[]", str(name)) for name in names):
        found = [file for name in names for file in Path(name.anchor).glob(str(name.relative_to(name.anchor)))]
        if not found:
            raise UserError(f"dataset.path: nothing matches {path}.")
        return sorted(set(found))
    missing = [name for name in names if not name.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"dataset.path: there is no {missing[0]}{more}.")
    return sorted(set(names))


def expand(pattern: str) -> list[str]:
    """Expand ``a{08..10}b{x,y}`` like a shell: a08bx, a08by, a09bx, ...

    Raises:
        UserError: a range is invalid.
    """
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = [[part] if i % 2 == 0 else _alternatives(part) for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*choices)]


def _alternatives(inside: str) -> list[str]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if numbers is None:
        if ".." in inside or not inside:
            raise UserError(f"dataset.path: {{{inside}}} is not a range such as {{000..009}}.")
        return inside.split(",")
    first, last = numbers[1], numbers[2]
    padded = any(len(number) > 1 and number[0] == "0" for number in (first, last))
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return [f"{n:0{width}d}" for n in range(int(first), int(last) + step, step)]
