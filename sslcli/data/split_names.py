"""The names of splits: in a column of the data, and in the names of files and folders."""

from __future__ import annotations

import re
from pathlib import Path

TRAIN, TEST, VALIDATION = "train", "test", "validation"
_SPLITS = {
    **dict.fromkeys((TRAIN, "training"), TRAIN),
    **dict.fromkeys((TEST, "testing"), TEST),
    **dict.fromkeys((VALIDATION, "valid", "val", "dev"), VALIDATION),
}


def named_split(word: str) -> str | None:
    """Return the split that a word names; None if it names none."""
    return _SPLITS.get(word.strip().lower())


def split_in(path: Path) -> str | None:
    """Return the split in the name of a file, else in the name of its folder; None if neither names one.

    Args:
        path: a path relative to the folder that the user gave.
    """
    for name in (path.stem, path.parent.name):
        words = [split for word in re.split(r"[-_. ]", name) if (split := named_split(word))]
        if words:
            return words[-1]
    return None
