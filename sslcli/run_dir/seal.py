"""A digest at the end of a file, so that one flipped bit is found before anything reads the rest.

Programs that read a zip look for its directory from the end and pass over what follows it: ``torch.load`` and
``zipfile`` open a sealed checkpoint as they open any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

_MARK = b"\nsha256 "
_LENGTH = len(_MARK) + 64 + 1  # the mark, the digest in hexadecimal, a line's end
_PIECE = 1 << 20


def sealed(content: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """The content, then its seal."""
    yield content
    yield _MARK + hashlib.sha256(content).hexdigest().encode() + b"\n"


def broken_seal(path: Path) -> str | None:
    """What is wrong with a sealed file, or an empty text if nothing is; None if the file has no seal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        left = max(path.stat().st_size - _LENGTH, 0)
        file.seek(left)
        seal = file.read()
        if _MARK not in seal:
            return None
        if not seal.startswith(_MARK):
            return "its end is missing"
        file.seek(0)
        while piece := file.read(min(_PIECE, left)):
            found.update(piece)
            left -= len(piece)
    return "" if seal == _MARK + found.hexdigest().encode() + b"\n" else "its content is not what was written"
