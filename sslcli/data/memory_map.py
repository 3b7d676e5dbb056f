"""An array in a file that is mapped into memory, so that only the rows that are used are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class MemoryMap:
    """The bytes of a file from ``offset`` on, as a uint8 tensor ``rows`` of ``shape``.

    Raises:
        ValueError: the file does not have the expected number of bytes.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], offset: int = 0) -> None:
        self.path, self.shape, self.offset = path, shape, offset
        size, wanted = path.stat().st_size, offset + int(np.prod(shape))
        if size != wanted:
            raise ValueError(f"{size:,} bytes where {wanted:,} are expected")
        # Copy on write, because torch needs writable memory and the file must never be changed.
        self.rows: Tensor = torch.from_numpy(np.memmap(path, np.uint8, mode="c", offset=offset, shape=shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple[type[MemoryMap], tuple[Path, tuple[int, ...], int]]:
        return MemoryMap, (self.path, self.shape, self.offset)  # a worker that is not forked maps the file again
