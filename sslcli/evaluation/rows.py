"""Rows of features that may fill most of the memory: gathered without a copy, and read piece by piece."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from sslcli.data.ram_cache import free_memory
from sslcli.errors import UserError
from sslcli.run_dir.console import progress

Columns = Mapping[str, Tensor]
SHARE = 0.5  # share of the free memory that one matrix of features may take
_PIECE = 2**26  # bytes of a piece, 64 MiB


def gathered(parts: Iterable[Tensor], count: int, what: str, places: Tensor | None = None) -> Tensor:
    """Return the ``count`` rows of ``parts`` in one float32 tensor (N, D) on the CPU.

    Each part is copied to its place, so that the peak is the size of the result. A result that does not fit into half
    of the free memory is a memory-mapped temporary file, which the system reads as it is needed.

    Args:
        parts: the rows in order, (B, D) each.
        count: number of all rows.
        what: the name of the phase on the progress bar.
        places: (count,) where each of the rows belongs; None keeps their order.

    Raises:
        UserError: the rows fit neither into the memory nor into the folder of temporary files.
    """
    rows = torch.empty(0)
    start = 0
    with progress(what, count, "samples") as bar:
        for part in parts:
            if not start:
                rows = _room(count, part.shape[1])
            here = slice(start, start + len(part))
            rows[here if places is None else places[here]] = part
            start += len(part)
            bar.update(len(part))
    return rows


def counted(pieces: Iterable[Columns], what: str, count: int) -> Iterator[Columns]:
    """Yield the columns of ``count`` samples piece by piece; a progress bar shows ``what`` and the remaining time."""
    with progress(what, count, "samples") as bar:
        for columns in pieces:
            yield columns
            bar.update(len(next(iter(columns.values()))))


def in_pieces(rows: Tensor) -> Iterator[Tensor]:
    """Yield views of the rows (N, D) in order, of at most 64 MiB each."""
    yield from rows.split(max(1, _PIECE // (rows.element_size() * max(1, rows.shape[1]))))


def _room(count: int, width: int) -> Tensor:
    size = 4 * count * width
    if size <= SHARE * free_memory():
        return torch.empty(count, width)
    try:
        with tempfile.TemporaryFile() as file:  # it has no name, so it is gone with this process
            os.posix_fallocate(file.fileno(), 0, size)
            return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(count, width)))
    except OSError as error:
        raise UserError(
            f"probe.max_samples: {count:,} features of width {width} are {size / 1e9:.1f} GB, which fit neither into "
            f"the memory nor into {tempfile.gettempdir()} ({error.strerror or error}). Give a smaller number, or set "
            "TMPDIR to a folder with more room."
        ) from None
