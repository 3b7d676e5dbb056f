"""Finds the byte ranges of pictures in WebDataset's tars; the headers of each tar are read once and cached."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sslcli.data.disk_cache import stored
from sslcli.data.pictures.byte_ranges import SPARSE, Files, Part
from sslcli.data.pictures.first_bytes import ENOUGH, EXTENSIONS, OTHERS, starts_a_picture
from sslcli.data.pictures.tar_samples import Picture, Sample, chosen
from sslcli.data.regular_files import open_regular
from sslcli.errors import UserError

# Key and extension, at the first dot of the file's name; no hidden files, such as those of another system.
_NAME = re.compile(r"((?:.*/)?[^./]+)(?:\.([^/]*))?")
_PACKED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7z": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
_LAYOUT = "tar 4"  # version of the cached arrays


def index_tar(path: Path) -> Part:
    """Return the byte ranges and classes of the pictures in a tar, from the cache if the tar has not changed.

    Raises:
        UserError: the file does not exist, is compressed, or is not a tar.
    """
    try:
        return Part(**stored(path, _LAYOUT, lambda: vars(_walk(path))))
    except OSError as error:
        raise UserError(f"dataset.path: {path} cannot be read ({error.strerror or error}).") from None


def _walk(path: Path) -> Part:
    with open_regular(path) as file:
        _refuse_packed(path, file.read(4))
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                samples = list(_samples(tar))
        except tarfile.TarError as error:
            raise UserError(f"dataset.path: {path} is not a tar ({error}). Remove it or fetch it again.") from None
    pictures, counts = chosen(samples)
    return Part(
        np.array([picture.start for picture in pictures], np.int64),
        np.array([picture.size for picture in pictures], np.int64),
        np.array([picture.label for picture in pictures] or [b""], "S")[: len(pictures)],
        counts=np.array(counts, np.int64),
    )


def _samples(tar: tarfile.TarFile) -> Iterator[Sample]:
    """Yield the samples of a tar, grouped as in WebDataset: consecutive members with the same key are a sample.

    A tar ends in a block of zeros. If it does not, the file is truncated or damaged, and its last sample may be, too.
    """
    sample = Sample("")
    file = tar.fileobj
    assert file is not None
    try:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all members in memory
            name = _NAME.fullmatch(member.name)
            if not member.isreg() or name is None:
                sample.links += member.islnk() or member.issym()
                continue
            key, extension = name[1], (name[2] or "").lower()
            if key != sample.key:
                yield sample
                sample = Sample(key)
            sample.members += 1
            part, _, last = extension.rpartition(".")
            if last == "cls":
                file.seek(member.offset_data)
                sample.labels[part] = file.read(min(member.size, 256)).strip()
            elif _is_picture(file, member, last):
                size = SPARSE if member.issparse() else member.size
                sample.pictures.append(Picture(part, member.offset_data, size))
        file.seek(tar.offset)
        complete = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    except tarfile.ReadError:
        complete = False
    if not complete:
        sample.cut()
    yield sample


def _is_picture(file: Any, member: tarfile.TarInfo, extension: str) -> bool:
    """Tell whether a member is a picture by the last extension of its name, else by its first bytes."""
    suffix = f".{extension}".encode(errors="surrogateescape") if extension else b""
    if suffix in EXTENSIONS or suffix in OTHERS:
        return suffix in EXTENSIONS
    file.seek(member.offset_data)
    return starts_a_picture(file.read(min(ENOUGH, member.size)))


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
