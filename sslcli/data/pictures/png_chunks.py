"""PNGs whose pixels are whole, and whose other parts, such as texts and colour profiles, are damaged or very large."""

from __future__ import annotations

import zlib
from typing import BinaryIO

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def pixels_only(file: BinaryIO) -> bytes | None:
    """Return a PNG without its texts, its colour profile and the ancillary chunks whose checksum is wrong.

    None if the file is no PNG, or nothing can be left out.
    """
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        return None
    content = _SIGNATURE + file.read()
    kept, at = [_SIGNATURE], len(_SIGNATURE)
    while at + 12 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        name, body, checksum = content[at + 4 : at + 8], content[at + 4 : end - 4], content[end - 4 : end]
        ancillary = name[:1].islower()
        if not (name in _TEXTS or (ancillary and zlib.crc32(body).to_bytes(4, "big") != checksum)):
            kept.append(content[at:end])
        at = end
    found = b"".join([*kept, content[at:]])
    return found if len(found) < len(content) else None
