"""``metrics.jsonl``: one JSON object a line, flushed after each line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sslcli.run_dir.files import writable, write_text

NAME = "metrics.jsonl"


def read_lines(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run; a line that is incomplete, because of a kill or while it is written, is skipped."""
    path = run_dir / NAME
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict) and "step" in line:
            yield {_up_to_date(key): value for key, value in line.items()}


def _up_to_date(key: str) -> str:
    """Return the name of a value as this version writes it: one name for label-free metrics, another for online kNN."""
    if key.startswith("quality/"):
        return key.replace("quality/", "probe/", 1)
    return "probe/online_knn_top1" if key == "probe/knn_top1" else key


class JsonLines:
    """Writes the file of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut_back(self, step: int) -> None:
        """Drop the lines after ``step`` and an incomplete last line, so that the resumed run repeats no step."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line."""
        with writable(self.path), self.path.open("a") as file:
            file.write(json.dumps(dict(values)) + "\n")
