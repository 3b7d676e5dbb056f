"""Where a job of a sweep has its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def job_folder(hydra: Any) -> Path:
    """Return the folder of a job of a sweep: of the number that its overrides have, else of its place in the sweep."""
    name = hydra.sweep.subdir
    return Path(hydra.sweep.dir) / (str(hydra.job.num) if name == "." else str(name))
