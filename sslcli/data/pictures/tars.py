"""Where the pictures lie in WebDataset's tars: each tar is walked once, header by header, and remembered."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslcli.data.disk_cache import stored
from sslcli.data.pictures.byte_ranges import CUT, Files, Part
from sslcli.data.pictures.file_index import EXTENSIONS
from sslcli.errors import UserError

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")  # key and extension, at the first dot of the file's name
_PACKED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7z": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_LAYOUT = "tar 2"  # of what is remembered


def index_tar(path: Path) -> Part:
    """The samples of a tar that have a picture, with what their .cls says; from the cache if the tar is as it was.

    Raises:
        UserError: it is not there, packed, or not a tar.
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

    def wants(self, extension: str) -> bool:
        """Whether it is the first picture, or the first that is called .jpg after one called .mask.jpg."""
        if f".{extension.rpartition('.')[2]}".encode() not in EXTENSIONS:
            return False
        return not self.extension or ("." in self.extension and "." not in extension)


def _walk(path: Path) -> Part:
    with path.open("rb") as file:
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
    """The members, grouped as WebDataset does: neighbours with one key are a sample.

    A tar ends in a block of zeros. One that does not has been cut or damaged, and so, perhaps, its last sample.
    """
    sample = _Sample("")
    file = tar.fileobj
    assert file is not None
    try:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would remember all of them
            name = _NAME.fullmatch(member.name)
            if not member.isreg() or name is None:
                continue
            key, extension = name[1], name[2].lower()
            if key != sample.key:
                yield sample
                sample = _Sample(key)
            if sample.wants(extension):
                sample.extension, sample.start, sample.size = extension, member.offset_data, member.size
            elif extension == "cls":
                file.seek(member.offset_data)
                sample.label = file.read(min(member.size, 256)).strip()
        file.seek(tar.offset)
        whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    except tarfile.ReadError:
        whole = False
    if not whole:
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
    """The name of the member whose bytes begin at ``start`` of a tar, from the header before them."""
    try:
        header = files.read(number, start - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
        return tarfile.TarInfo.frombuf(header, "utf-8", "backslashreplace").name
    except (OSError, tarfile.HeaderError):
        return f"byte {start}"
