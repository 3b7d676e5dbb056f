"""Writers of packed samples: as one array, or as WebDataset's tars."""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Protocol

from numpy.lib import format as npy

Packed = tuple[str, bytes]  # an extension and a content


class Writer(Protocol):
    """Writes samples into a folder."""

    def add(self, number: int, label: int | None, sample: Packed) -> None:
        """Write the next sample."""

    def finish(self, count: int) -> None:
        """Complete and close the files, which hold ``count`` samples."""


class ArrayWriter:
    """Writes images.npy; the number of samples in its header is written at the end."""

    def __init__(self, folder: Path, size: int, held: ExitStack) -> None:
        self.size = size
        self.file = held.enter_context((folder / "images.npy").open("wb"))
        self.file.write(self._header(0))

    def _header(self, count: int) -> bytes:
        file = io.BytesIO()
        shape = (count, 3, self.size, self.size)
        npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return file.getvalue()  # numpy pads it, so that its length does not depend on ``count``

    def add(self, number: int, label: int | None, sample: Packed) -> None:
        self.file.write(sample[1])

    def finish(self, count: int) -> None:
        header = self._header(count)
        assert len(header) == len(self._header(0))
        self.file.seek(0)
        self.file.write(header)
        sync(self.file)


class ShardWriter:
    """Writes shard-000000.tar, shard-000001.tar, ..., each with at most ``limit`` bytes of pictures.

    A picture that is larger than ``limit`` gets a shard of its own.
    """

    def __init__(self, folder: Path, limit: float, held: ExitStack) -> None:
        self.folder, self.limit, self.held = folder, limit, held
        self.num_shards, self.room = 0, 0.0
        self.file: BinaryIO | None = None

    def add(self, number: int, label: int | None, sample: Packed) -> None:
        extension, content = sample
        if self.file is None or len(content) > self.room:
            self._close()
            path = self.folder / f"shard-{self.num_shards:06d}.tar"
            self.file = self.held.enter_context(path.open("wb"))
            self.tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self.num_shards, self.room = self.num_shards + 1, self.limit
        self.room -= len(content)
        self._member(f"{number:09d}.{extension}", content)
        if label is not None:
            self._member(f"{number:09d}.cls", b"%d" % label)

    def _member(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self.tar.addfile(member, io.BytesIO(content))

    def _close(self) -> None:
        if self.file is not None:
            self.tar.close()
            sync(self.file)
            self.file.close()

    def finish(self, count: int) -> None:
        self._close()


def sync(file: BinaryIO) -> None:
    """Flush a file and wait until it is on the disk."""
    file.flush()
    os.fsync(file.fileno())
