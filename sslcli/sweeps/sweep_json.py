"""``sweep.json``: which job of a sweep has which overrides and, when it has ended, what came of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslcli.config.arguments import key_of
from sslcli.config.identity import LENGTH, is_changeable
from sslcli.config.secrets import hide
from sslcli.errors import UserError
from sslcli.run_dir import inside
from sslcli.run_dir.json_files import JsonFile, loads
from sslcli.run_dir.lock import in_turn
from sslcli.run_dir.output import folder_for

NAME, LOCK = "sweep.json", "sweep.lock"


@dataclass(kw_only=True)
class SweepFile(JsonFile):
    """The content of the file.

    Each job has its number ``job``, the name of its folder; all its ``overrides``; and ``same``, those by which it is
    found again: without keys that may change while a run goes on, unless they are swept over.
    """

    jobs: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for job in self.jobs:
            texts = [*job.get("overrides", [None]), *job.get("same", [None])]
            if not isinstance(job.get("job"), int) or not all(isinstance(text, str) for text in texts):
                raise ValueError("a job has no number or no overrides")


@dataclass(frozen=True)
class Numbering:
    """The number of a job, and whether it was started with exactly these overrides before."""

    number: int
    is_known: bool


def numbers(sweep_dir: Path, jobs: Sequence[Sequence[str]], swept: Collection[str]) -> list[Numbering]:
    """Return the number of each job by its overrides; a new one gets the next number, which is written down.

    Args:
        sweep_dir: the folder of the sweep, which is made.
        jobs: the overrides of each job.
        swept: the keys over which the sweep goes.

    Raises:
        UserError: the file cannot be written.
    """
    found: list[Numbering] = []

    def number(sweep: dict[str, Any]) -> None:
        by_same = {tuple(job["same"]): job for job in sweep["jobs"]}
        for overrides in jobs:
            texts = [hide(text) for text in overrides if key_of(text) not in ("run_dir", "resume")]
            same = tuple(sorted(text for text in texts if _tells_apart(key_of(text), swept)))
            job = by_same.setdefault(same, {"job": len(by_same)})
            found.append(Numbering(job["job"], is_known=job.get("overrides") == texts))
            job |= {"overrides": texts, "same": list(same)}
        sweep["jobs"] = list(by_same.values())

    change(sweep_dir, number)
    return found


def _tells_apart(key: str, swept: Collection[str]) -> bool:
    is_length = key in [f"train.{name}" for name in LENGTH]
    return key in swept or not (is_length or is_changeable(key))


def read(sweep_dir: Path) -> dict[str, Any] | None:
    """Return the content of a sweep's ``sweep.json``; None if the folder has none.

    Raises:
        UserError: it is damaged: without it nobody knows which folder is whose.
    """
    content = inside.read(sweep_dir, NAME)
    try:
        return None if content is None else loads(content, SweepFile)
    except ValueError as error:
        raise UserError(
            f"run_dir: {sweep_dir / NAME}, which says whose folder is whose, is damaged ({error}). "
            "The runs below it can be used one by one; for a sweep give another run_dir."
        ) from None


def change(sweep_dir: Path, act: Callable[[dict[str, Any]], None]) -> None:
    """Let ``act`` change the content of the file, while no other process does."""
    with folder_for(sweep_dir / NAME, "run_dir"), in_turn(sweep_dir, LOCK):
        sweep = read(sweep_dir) or {"jobs": [], "best": None}
        act(sweep)
        inside.write_text(sweep_dir, NAME, json.dumps(sweep, indent=1) + "\n")
