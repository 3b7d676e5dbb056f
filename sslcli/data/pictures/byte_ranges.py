"""Pictures as ranges of bytes in files: any of them can be read at any time, by any process."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslcli.data.pictures.classes import labels_of
from sslcli.data.pictures.decode import BadPicture

CUT = -1  # in place of the size of a picture that its file holds only a part of


class Files:
    """Files read at offsets. Few are open at a time, and each process opens its own.

    Reading at an offset moves no position, so forked processes may even share what was open before.

    Args:
        paths: the files, by number.
        limit: how many may be open.
    """

    def __init__(self, paths: Sequence[Path], limit: int = 128) -> None:
        self.paths, self.limit = list(paths), limit
        self._open: OrderedDict[int, int] = OrderedDict()  # file -> descriptor, the longest unused first

    def read(self, number: int, start: int, size: int) -> bytes:
        """``size`` bytes from ``start`` on, fewer where the file ends.

        Raises:
            OSError: the file is not there or cannot be read.
        """
        if number not in self._open:
            if len(self._open) >= self.limit:
                os.close(self._open.popitem(last=False)[1])
            self._open[number] = os.open(self.paths[number], os.O_RDONLY)
        self._open.move_to_end(number)
        return os.pread(self._open[number], size, start)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


@dataclass
class Part:
    """The pictures of one file, in their order."""

    start: np.ndarray  # (N,) int64, where a picture's bytes begin
    size: np.ndarray  # (N,) int64, how many they are, or CUT
    label: np.ndarray  # (N,) bytes, what is said of its class, or empty


class ByteRanges:
    """The pictures of a few files, one file after the other.

    Args:
        files: where the bytes are read from.
        parts: what is in each.
        names: what the files are called for a fingerprint; null takes their own names.
    """

    def __init__(self, files: Sequence[Path], parts: Sequence[Part], names: Sequence[str] | None = None) -> None:
        self.files = Files(files)
        self.names = [path.name for path in files] if names is None else list(names)
        self.number = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.start) for part in parts])
        self.start = np.concatenate([part.start for part in parts])
        self.size = np.concatenate([part.size for part in parts])
        self.labels = labels_of(np.concatenate([part.label for part in parts]))

    def __len__(self) -> int:
        return len(self.start)

    def fingerprint(self) -> str:
        """Changes with every file's name and with every picture's place and size."""
        state = zlib.crc32("\n".join(self.names).encode(errors="surrogateescape"))
        for array in (self.number, self.start, self.size):
            state = zlib.crc32(array.tobytes(), state)
        return f"{len(self)} pictures in {len(self.names)} files, places {state:08x}"

    def source(self, i: int) -> bytes:
        """The i-th picture's file content.

        Raises:
            BadPicture: it cannot be read in whole.
        """
        size = int(self.size[i])
        try:
            content = self.files.read(int(self.number[i]), int(self.start[i]), max(size, 0))
        except OSError as error:
            raise BadPicture(error.strerror or str(error)) from None
        if len(content) != size:
            raise BadPicture("the file that holds it has been cut")
        return content
