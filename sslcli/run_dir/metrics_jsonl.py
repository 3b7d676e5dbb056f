"""``metrics.jsonl``: one JSON object a line, flushed after each line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslcli.run_dir import inside
from sslcli.run_dir.json_files import JsonFile, loads

NAME = "metrics.jsonl"
_MOST_STEPS = 10**12


@dataclass(kw_only=True)
class Line(JsonFile):
    """The schema of a line."""

    step: int

    def __post_init__(self) -> None:
        if not 0 <= self.step <= _MOST_STEPS:
            raise ValueError(f"step={self.step} is no number of steps")

    @classmethod
    def up_to_date(cls, found: dict[str, Any]) -> dict[str, Any]:
        return {_up_to_date(key): value for key, value in found.items()}


def read_lines(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run; one that is cut short, by a kill or while it is written, or damaged is skipped."""
    for _, line in _lines(inside.read(run_dir, NAME) or b""):
        if line is not None:
            yield line


def _lines(content: bytes) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Yield each line as it is written, and its values; None for a line that cannot be read."""
    for text in content.splitlines():
        try:
            yield text, loads(text, Line)
        except ValueError:
            yield text, None


def _up_to_date(key: str) -> str:
    """Return the name of a value as this version writes it: one name for label-free metrics, another for online kNN."""
    if key.startswith("quality/"):
        return key.replace("quality/", "probe/", 1)
    return "probe/online_knn_top1" if key == "probe/knn_top1" else key


class JsonLines:
    """Writes the file of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, step: int) -> int:
        """Drop the lines after ``step``, so that the resumed run repeats no step, and those that cannot be read.

        Returns:
            The number of lines that could not be read, without an incomplete last one, which every kill may leave.
        """
        content = inside.read(self.path.parent, self.path.name)
        if content is None:
            return 0
        lines = list(_lines(content))
        kept = [text + b"\n" for text, values in lines if values is not None and values["step"] <= step]
        inside.write(self.path.parent, self.path.name, lambda file: file.writelines(kept))
        complete = lines if content.endswith(b"\n") else lines[:-1]
        return sum(values is None for _, values in complete)

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line."""
        inside.append(self.path.parent, self.path.name, f"{json.dumps(dict(values))}\n".encode())
