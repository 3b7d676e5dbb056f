"""``metrics.jsonl``: one JSON object a line, flushed after each line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sslcli.run_dir import inside

NAME = "metrics.jsonl"


def read_lines(run_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run; a line that is incomplete, because of a kill or while it is written, is skipped."""
    content = inside.read(run_dir, NAME) or b""
    for text in content.decode(errors="replace").splitlines():
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
        content = inside.read(self.path.parent, self.path.name)
        if content is None:
            return
        kept = []
        for line in content.decode().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        inside.write_text(self.path.parent, self.path.name, "".join(f"{line}\n" for line in kept))

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line."""
        inside.append(self.path.parent, self.path.name, f"{json.dumps(dict(values))}\n".encode())
