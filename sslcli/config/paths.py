"""Paths as a user writes them."""

from __future__ import annotations

from pathlib import Path


def expand(path: str) -> Path:
    """A user's path with ``~`` understood."""
    return Path(path).expanduser()
