"""Checks the structure of a zip file of ``torch.save`` before torch reads it: every byte must have its place.

torch finds members by the directory at the end of the file and trusts it: it compares no checksum, and for a member
that is marked as a folder it returns memory that nothing was written to. So the directory is compared with the headers
before the members, and both with what ``torch.save`` writes: members without compression, one behind the other, then
the directory, then its end.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_HEADER = struct.Struct("<4s5H3I2H")  # before each member
_ENTRY = struct.Struct("<4s6H3I5H2I")  # in the directory
_END = struct.Struct("<4s4H2IH")
_LONG_END = struct.Struct("<4sQ2H2I4Q")  # the same with 64 bits; torch always writes it
_LOCATOR = struct.Struct("<4sIQI")
_BEHIND = 24  # the largest number of bytes behind a member, which repeat its checksum and its sizes
_MOST = 0xFFFFFFFF  # stands for a number that needs 64 bits
_DESCRIBED = 0x0008  # a flag: checksum and sizes are behind the member, and may be 0 in its header
_FLAGS = 0x080E  # this flag, that of UTF-8 names, and two that say how well a member is compressed
_FOLDER = 0x10  # an attribute
_PIECE = 1 << 20


class BrokenArchive(Exception):
    """The file is damaged; the message says what is wrong."""


class ForeignArchive(Exception):
    """The file is not one that ``torch.save`` writes, though it may be whole; the message says why."""


@dataclass(frozen=True)
class Member:
    """A member of an archive, and where its content lies in the file."""

    name: str
    start: int
    size: int


def is_archive(file: BinaryIO) -> bool:
    """Whether a file begins like a zip file; torch decides by the same bytes."""
    return _at(file, 0, 4) == b"PK\3\4"


def members(file: BinaryIO, size: int) -> list[Member]:
    """Return the members of an archive after checking its structure and their checksums.

    Args:
        file: the file.
        size: the number of bytes of the archive; what follows it in the file is ignored.

    Raises:
        BrokenArchive: the file is damaged.
        ForeignArchive: members are folders, encrypted or compressed.
        OSError: the file cannot be read.
    """
    try:
        found = list(_members(file, *_directory(file, size)))
    except (struct.error, UnicodeDecodeError):
        raise BrokenArchive("its directory is cut short") from None
    if len({member.name.lower() for member in found}) < len(found):  # torch does not tell capitals apart
        raise BrokenArchive("two of its members have one name")
    return found


def _members(file: BinaryIO, count: int, end: int, directory: bytes) -> Iterator[Member]:
    """Yield the members by the ``count`` entries of the directory, which begins at ``end``, where they must end."""
    place = free = 0
    for _ in range(count):
        signature, _, *facts, name_size, extra_size, note_size, disk, _, attributes, at = _ENTRY.unpack_from(
            directory, place
        )
        name, extra, _, place = _split(directory, place + _ENTRY.size, name_size, extra_size, note_size)
        if signature != b"PK\1\2" or disk:
            raise BrokenArchive("its directory is damaged")
        flags, method, crc = facts[1], facts[2], facts[5]
        stored, size, at = _wide(extra, facts[6], facts[7], at)
        if not free <= at <= free + (_BEHIND if free else 0):
            raise BrokenArchive("a member is not where its directory says")
        start = _start(file, at, name, facts)
        label = name.decode()
        if method or flags & ~_FLAGS or label.endswith("/"):
            raise ForeignArchive(f"its member {label!r} is a folder, encrypted or compressed")
        free = start + size
        if attributes & _FOLDER or stored != size or free > end or _checksum(file, start, size) != crc:
            raise BrokenArchive(f"its member {label!r} is damaged")
        yield Member(label, start, size)
    if place != len(directory) or not free <= end <= free + _BEHIND:
        raise BrokenArchive("its directory is damaged")


def _directory(file: BinaryIO, size: int) -> tuple[int, int, bytes]:
    """Return the number of entries of the directory, where it begins, and its bytes."""
    place = size - _END.size
    signature, *disks, here, count, length, start, note = _END.unpack(_at(file, place, _END.size))
    if signature != b"PK\5\6" or note:
        raise BrokenArchive("its end is missing")
    long_place = place - _LOCATOR.size - _LONG_END.size
    if _at(file, place - _LOCATOR.size, _LOCATOR.size) == _LOCATOR.pack(b"PK\6\7", 0, long_place, 1):
        short, place = (here, count, length, start), long_place
        signature, long, _, _, *more, here, count, length, start = _LONG_END.unpack(_at(file, place, _LONG_END.size))
        disks += [*more, long - (_LONG_END.size - 12)]
        limits = zip(short, (here, count, length, start), (0xFFFF, 0xFFFF, _MOST, _MOST))
        if signature != b"PK\6\6" or any(few not in (many, most) for few, many, most in limits):
            raise BrokenArchive("its end is damaged")
    if any(disks) or here != count or start + length != place:
        raise BrokenArchive("its end is damaged")
    return count, start, _at(file, start, length)


def _start(file: BinaryIO, at: int, name: bytes, facts: list[int]) -> int:
    """Return where a member begins, after comparing the header before it with the facts in the directory."""
    signature, *found, name_size, extra_size = _HEADER.unpack(_at(file, at, _HEADER.size))
    start = at + _HEADER.size + name_size
    described = facts[1] & _DESCRIBED
    numbers = zip(found[5:], facts[5:])  # checksum and sizes
    same = all(header in (entry, _MOST) or (described and header == 0) for header, entry in numbers)
    if signature != b"PK\3\4" or found[:5] != facts[:5] or not same or _at(file, start - name_size, name_size) != name:
        raise BrokenArchive(f"its directory and its member {name.decode(errors='replace')!r} differ")
    return start + extra_size


def _wide(extra: bytes, *numbers: int) -> list[int]:
    """Return stored size, size and place; those that need 64 bits are in the extra field, the size first."""
    found, place = list(numbers), 0
    while place < len(extra):
        kind, size = struct.unpack_from("<2H", extra, place)
        wide = [i for i in (1, 0, 2) if numbers[i] == _MOST] if kind == 1 else []
        for i, value in zip(wide, struct.unpack_from(f"<{len(wide)}Q", extra, place + 4)):
            found[i] = value
        place += 4 + size
    return found


def _split(content: bytes, place: int, *sizes: int) -> tuple[bytes, bytes, bytes, int]:
    """Return three pieces of these sizes, and the place behind them."""
    ends = [place + sum(sizes[:count]) for count in range(4)]
    first, second, third = (content[begin:end] for begin, end in zip(ends, ends[1:]))
    return first, second, third, ends[3]


def _checksum(file: BinaryIO, start: int, size: int) -> int:
    file.seek(start)
    crc = 0
    while size and (piece := file.read(min(_PIECE, size))):
        crc = zlib.crc32(piece, crc)
        size -= len(piece)
    return crc


def _at(file: BinaryIO, start: int, size: int) -> bytes:
    """Return ``size`` bytes from ``start``; none of them lies before or behind the content of the file."""
    if start < 0:
        return b""
    file.seek(start)
    return file.read(size)
