"""What was found at a place: pictures with their possible labels, names of one file, and what was left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from sslcli.data.base import Notes
from sslcli.data.pictures.folders import Tally
from sslcli.data.pictures.paths import Paths

_KINDS = 6  # extensions that a line names


@dataclass(frozen=True)
class Found:
    """N pictures that were found at a place.

    Args:
        paths: their paths.
        parents: (N,) int32, the rank of the name of each picture's folder; -1 for a folder that is no class.
        tops: (N,) int32, the rank of the name of the topmost folder on the way to each picture; -1 likewise.
        first: (N,) int32, the number of the first name of the same file; its own if there is no other.
        above: the beginning of the paths that comes before the topmost folders.
        depth: the number of folders of a relative path above the topmost ones.
        tally: what was left out.
    """

    paths: Paths
    parents: np.ndarray
    tops: np.ndarray
    first: np.ndarray
    above: bytes = b""
    depth: int = 0
    tally: Tally = field(default_factory=Tally)


def packed(tally: Tally) -> np.ndarray:
    """Convert a tally to bytes, for the cache of the index."""
    counts = {
        name: {printable(extension): count for extension, count in counted.items()}
        for name, counted in (("pictures", tally.pictures), ("left_out", tally.left_out))
    }
    return np.frombuffer(json.dumps({**vars(tally), **counts}).encode(), np.uint8)


def unpacked(content: np.ndarray) -> Tally:
    """Convert back from what ``packed`` returned."""
    plain = json.loads(content.tobytes())
    pictures, left_out = (
        Counter({extension.encode(): count for extension, count in plain.pop(name).items()})
        for name in ("pictures", "left_out")
    )
    return Tally(pictures, left_out, **plain)


def printable(path: bytes) -> str:
    """Convert a name of a file for printing: special bytes are escaped, so that it is one line."""
    text = path.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def in_words(counts: Mapping[bytes, int]) -> str:
    """Return counts of files by extension for people: ``12 files: 10 .txt, 2 without extension``."""
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    named = [f"{count:,} {printable(extension) or 'without extension'}" for extension, count in ordered]
    shown = named[:_KINDS] + [f"{sum(count for _, count in ordered[_KINDS:]):,} others"] * (len(named) > _KINDS)
    return f"{total:,} file{'s' * (total != 1)}: {', '.join(shown)}"


def tally_notes(tally: Tally) -> Notes:
    """Return what a tally says of the pictures and of the files that were left out; nothing where there is nothing."""
    by_content = f", {tally.by_content:,} of them by their first bytes" if tally.by_content else ""
    notes = [("pictures", in_words(tally.pictures) + by_content)] if tally.pictures else []
    reasons = [f"no pictures are {in_words(tally.left_out)}"] if tally.left_out else []
    if tally.broken:
        reasons.append(f"{tally.broken:,} named like pictures that are no files, or links to nowhere")
    if tally.hidden:
        reasons.append(f"{tally.hidden:,} hidden")
    return (*notes, *([("left out", "; ".join(reasons))] if reasons else ()))
