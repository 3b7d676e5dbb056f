"""Finds the byte ranges of pictures in WebDataset's tars; the headers of each tar are read once and cached."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslcli.data.disk_cache import stored
from sslcli.data.pictures.byte_ranges import CUT, Files, Part
from sslcli.data.pictures.first_bytes import EXTENSIONS
from sslcli.data.regular_files import open_regular
from sslcli.errors import UserError

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")  # key and extension, at the first dot of the file's name
_PACKED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7z": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_LAYOUT = "tar 3"  # version of the cached arrays


def index_tar(path: Path) -> Part:
    """Return the byte ranges and classes of the pictures in a tar, from the cache if the tar has not changed.

    Raises:
        UserError: the file does not exist, is compressed, or is not a tar.
    """
    try:
        return Part(**stored(path, _LAYOUT, lambda: vars(_walk(path))))
    except OSError as error:
        raise UserError(f"dataset.path: {path} cannot be read ({error.strerror or error}).") from None


@dataclass
class _Sample:
    key: str
    extension: str = ""  # of its picture
    start: int = -1
    size: int = 0
    label: bytes = b""

    def prefers(self, extension: str) -> bool:
        """Whether a member with this extension is the sample's picture: its first one, or .jpg after .mask.jpg."""
        if f".{extension.rpartition('.')[2]}".encode() not in EXTENSIONS:
            return False
        return not self.extension or ("." in self.extension and "." not in extension)


def _walk(path: Path) -> Part:
    with open_regular(path) as file:
        _refuse_packed(path, file.read(4))
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                samples = [(found.start, found.size, found.label) for found in _samples(tar) if found.start >= 0]
        except tarfile.TarError as error:
            raise UserError(f"dataset.path: {path} is not a tar ({error}). Remove it or fetch it again.") from None
    start, size, label = zip(*samples) if samples else ((), (), ())
    return Part(np.array(start, np.int64), np.array(size, np.int64), np.array(label, "S"))


def _samples(tar: tarfile.TarFile) -> Iterator[_Sample]:
    """Yield the samples of a tar, grouped as in WebDataset: consecutive members with the same key are a sample.

    A tar ends in a block of zeros. If it does not, the file is truncated or damaged, and its last sample may be, too.
    """
    sample = _Sample("")
    file = tar.fileobj
    assert file is not None
    try:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all members in memory
            name = _NAME.fullmatch(member.name)
            if not member.isreg() or name is None:
                continue
            key, extension = name[1], name[2].lower()
            if key != sample.key:
                yield sample
                sample = _Sample(key)
            if sample.prefers(extension):
                sample.extension, sample.start, sample.size = extension, member.offset_data, member.size
            elif extension == "cls":
                file.seek(member.offset_data)
                sample.label = file.read(min(member.size, 256)).strip()
        file.seek(tar.offset)
        complete = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    except tarfile.ReadError:
        complete = False
    if not complete:
        sample.start, sample.size = max(sample.start, 0), CUT
    yield sample


def _refuse_packed(path: Path, magic: bytes) -> None:
    for start, tool in _PACKED.items():
        if magic.startswith(start):
            raise UserError(
                f"dataset.path: {path} is compressed, so its pictures cannot be read one by one. "
                f"Unpack it: {tool} {path}"
            )


def member_name(files: Files, number: int, start: int) -> str:
    """Return the name of the member whose data begin at ``start`` of a tar, from the header before the data."""
    try:
        header = files.read(number, start - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
        return tarfile.TarInfo.frombuf(header, "utf-8", "backslashreplace").name
    except (OSError, tarfile.HeaderError):
        return f"byte {start}"
