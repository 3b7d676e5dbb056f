"""Paths that a user writes in a config."""

from __future__ import annotations

from pathlib import Path


def expand(path: str) -> Path:
    """Return the path with ``~`` replaced by the home folder."""
    return Path(path).expanduser()
