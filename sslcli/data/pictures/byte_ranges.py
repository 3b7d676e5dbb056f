"""Pictures as ranges of bytes in files, which can be read in any order and by any process."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sslcli.data.base import Notes
from sslcli.data.fingerprints import LIMIT, of_files
from sslcli.data.pictures.classes import labels_of
from sslcli.data.pictures.opening import BadPicture
from sslcli.data.regular_files import open_regular

CUT = -1  # the size of a picture whose file is truncated
SPARSE = -2  # the size of a picture that a tar holds without its zeros


class Files:
    """Files that are read at offsets. A limited number is open at a time, and each process opens its own.

    Reading does not move a file position, so forked processes may also share files that were open before the fork.

    Args:
        paths: the files, by number.
        limit: the maximum number of open files.
    """

    def __init__(self, paths: Sequence[Path], limit: int = 128) -> None:
        self.paths, self.limit = list(paths), limit
        self._open: OrderedDict[int, BinaryIO] = OrderedDict()  # by number, least recently used first

    def read(self, number: int, start: int, size: int) -> bytes:
        """Read ``size`` bytes from ``start`` on, fewer at the end of the file.

        Raises:
            OSError: the file does not exist or cannot be read.
        """
        if number not in self._open:
            if len(self._open) >= self.limit:
                self._open.popitem(last=False)[1].close()
            self._open[number] = open_regular(self.paths[number])
        self._open.move_to_end(number)
        return os.pread(self._open[number].fileno(), size, start)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        for file in self._open.values():
            file.close()


@dataclass
class Part:
    """The pictures of one file, in the order of the file."""

    start: np.ndarray  # (N,) int64, offset of each picture in the file
    size: np.ndarray  # (N,) int64, number of bytes of each picture, or CUT or SPARSE
    label: np.ndarray  # (N,) bytes, number or name of each picture's class, or empty
    names: np.ndarray = field(default_factory=lambda: np.zeros(0, "S1"))  # (C,) bytes, names of classes 0, 1, ...
    counts: np.ndarray = field(default_factory=lambda: np.zeros(3, np.int64))  # of a tar, see ``tar_samples.Counts``


class ByteRanges:
    """The pictures of several files, one file after the other.

    Args:
        files: the files with the pictures.
        parts: the pictures of each file.
        originals: the files of the user, for the fingerprint, if ``files`` are unpacked copies of them.
        notes: what was found and left out, for the start lines.
    """

    def __init__(
        self,
        files: Sequence[Path],
        parts: Sequence[Part],
        originals: Sequence[Path] | None = None,
        notes: Notes = (),
    ) -> None:
        self.files = Files(files)
        self.originals = list(originals or files)
        self.number = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.start) for part in parts])
        self.start = np.concatenate([part.start for part in parts])
        self.size = np.concatenate([part.size for part in parts])
        self.notes = notes
        self.labels, self.classes = labels_of([(part.label, part.names.tolist()) for part in parts])

    def __len__(self) -> int:
        return len(self.start)

    def fingerprint(self, limit: int = LIMIT) -> str:
        """Return a text that changes with the name and with the content of any file; see ``of_many``."""
        known = of_files(self.originals, limit)
        return f"{len(self)} pictures in {len(self.originals)} files, {known}"

    def old_fingerprint(self) -> str:
        """Return the text of old checkpoints, which changes with the files' names and the pictures' places only."""
        state = zlib.crc32("\n".join(path.name for path in self.originals).encode(errors="surrogateescape"))
        for array in (self.number, self.start, self.size):
            state = zlib.crc32(array.tobytes(), state)
        return f"{len(self)} pictures in {len(self.originals)} files, places {state:08x}"

    def source(self, i: int) -> bytes:
        """Read the content of the i-th picture.

        Raises:
            BadPicture: it cannot be read completely.
        """
        size = int(self.size[i])
        if size == SPARSE:
            raise BadPicture("a sparse member; write the tar without --sparse")
        try:
            content = self.files.read(int(self.number[i]), int(self.start[i]), max(size, 0))
        except OSError as error:
            raise BadPicture(error.strerror or str(error)) from None
        if len(content) != size:
            raise BadPicture("the file that holds it has been cut")
        return content
