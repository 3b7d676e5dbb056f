"""A SHA-256 digest at the end of a file, which is checked before the file is read.

Readers of zip files search for the central directory from the end and ignore what follows it. So ``torch.load`` and
``zipfile`` can open a sealed checkpoint.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

_MARK = b"\nsha256 "
LENGTH = len(_MARK) + 64 + 1  # the mark, the digest in hexadecimal, a line break
_PIECE = 1 << 20


def write_sealed(file: BinaryIO, content: bytes | memoryview) -> None:
    """Write the content to an empty file, then the seal: its digest, computed while the content goes to the disk."""
    with ThreadPoolExecutor(1) as other:
        digest = other.submit(hashlib.sha256, content)  # which lets this thread run
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        file.write(_MARK + digest.result().hexdigest().encode() + b"\n")


def broken_seal(file: BinaryIO) -> str | None:
    """Check a sealed file: return what is wrong, an empty string if nothing is, or None if the file has no seal."""
    digest = hashlib.sha256()
    left = max(file.seek(0, os.SEEK_END) - LENGTH, 0)
    file.seek(left)
    seal = file.read()
    if _MARK not in seal:
        return None
    if not seal.startswith(_MARK):
        return "its end is missing"
    file.seek(0)
    while piece := file.read(min(_PIECE, left)):
        digest.update(piece)
        left -= len(piece)
    return "" if seal == _MARK + digest.hexdigest().encode() + b"\n" else "its content is not what was written"
