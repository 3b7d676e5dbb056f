"""Length buckets: batches of texts that are about as long, so that little of a batch is padding.

The order of an epoch stays a function of (seed, epoch, place). The permutation is cut into windows of some batches. The
samples of a window are sorted by length and cut into batches, and the batches of the window are permuted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import Dataset
from sslcli.data.sampler import permuted
from sslcli.errors import UserError
from sslcli.types import Spec, lengths

_ROWS = 4096  # samples that are read at a time
_WINDOW = 2**15  # samples that are sorted at a time, so that a file larger than the memory is read about in its order


def check_buckets(spec: Spec) -> None:
    """Raise UserError if no column holds texts of different lengths."""
    if not _padded(spec):
        raise UserError("dataset.buckets sorts texts by length, and these data have none with padding. Leave it null.")


def lengths_of(dataset: Dataset, index: Tensor, names: Sequence[str] | None = None) -> np.ndarray:
    """Return the number of tokens (N,) of the samples at ``index`` (N,), of the longest of the columns ``names``.

    None is all columns of texts with padding.
    """
    found = []
    for part in index.split(_ROWS):
        columns = dataset.fetch(part)
        each = [lengths(columns[name], dataset.spec[name].pad) for name in names or _padded(dataset.spec)]
        found.append(torch.stack(each).amax(0).cpu())
    return torch.cat(found).numpy()


def by_length(dataset: Dataset, index: Tensor, column: str) -> Tensor | None:
    """Return positions in ``index`` (N,), sorted by the length of texts within windows, for reading without a gradient.

    None where no order saves time: ``column`` has no padding, or the samples are files whose lengths would cost a read.
    """
    if not dataset.in_memory or column not in _padded(dataset.spec):
        return None
    found = []
    for start in range(0, len(index), _WINDOW):
        window = index[start : start + _WINDOW]
        found.append(start + np.argsort(-lengths_of(dataset, window, [column]), kind="stable"))
    return torch.from_numpy(np.concatenate(found)) if found else None


def bucketed(order: Tensor, length: np.ndarray, batch_size: int, *key: int | str) -> Tensor:
    """Return a window's samples in batches of about equal lengths.

    Args:
        order: (N,) the samples of the window, N a multiple of ``batch_size``.
        length: (N,) their lengths.
        batch_size: samples of a batch. Within a batch they stay in the order of the permutation, so that each process
            and micro-batch gets short and long ones.
        key: numbers and texts that determine the order of the batches.
    """
    batches = np.sort(np.argsort(length, kind="stable").reshape(-1, batch_size), axis=1)
    batches = batches[permuted(np.arange(len(batches)), len(batches), *key)]
    return order[torch.from_numpy(batches.reshape(-1))]


def _padded(spec: Spec) -> list[str]:
    return [name for name, field in spec.items() if field.kind == "tokens" and field.pad is not None]
