"""Cuts the padding off a batch of texts that its longest text does not need: less to send, and less to compute.

A dataset pads all texts to one length, so that they can be cached and compared with their field. A batch is as wide as
its widest text, rounded up to a multiple of 16: kernels are made for such sizes, and a compiled encoder meets few. The
width is found on the host, so that a GPU is never waited for; padding changes nothing that is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.types import Field, Spec

MULTIPLE = 16


def lengths(ids: Tensor, pad: int) -> Tensor:
    """Return the number of tokens (N,) of each text in ids (N, T), up to its last one that is no padding."""
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return torch.where(ids != pad, places, 0).amax(1)


def width_for(longest: int, field: Field) -> int:
    """Return the width of a batch whose longest text has ``longest`` tokens, at most that of the field."""
    rounded = -(-max(longest, 1) // MULTIPLE) * MULTIPLE
    return min(rounded, field.shape[0])


def trimmed(columns: Mapping[str, Tensor], spec: Spec) -> dict[str, Tensor]:
    """Return the columns of a batch, those of tokens no wider than their longest text needs.

    Columns that are on a device already were cut when they were fetched (``OnDevice``).
    """
    return {name: _trimmed(column, spec.get(name)) for name, column in columns.items()}


def _trimmed(ids: Tensor, field: Field | None) -> Tensor:
    if field is None or not can_trim(field) or ids.device.type != "cpu" or not len(ids):
        return ids
    return ids[:, : width_for(int(lengths(ids, pad_of(field)).max()), field)].contiguous()


def can_trim(field: Field) -> bool:
    """Whether a column holds texts with padding."""
    return field.pad is not None


def pad_of(field: Field) -> int:
    """Return the id of padding of a column that ``can_trim``."""
    assert field.pad is not None
    return field.pad


def joined(pieces: Sequence[Mapping[str, Tensor]], spec: Spec) -> dict[str, Tensor]:
    """Return several batches as one, as wide as the widest of them."""
    if len(pieces) == 1:
        return dict(pieces[0])
    found: dict[str, Tensor] = {}
    for name in pieces[0]:
        columns, field = [piece[name] for piece in pieces], spec.get(name)
        if field is not None and can_trim(field):
            width = max(column.shape[1] for column in columns)
            columns = [F.pad(column, (0, width - column.shape[1]), value=pad_of(field)) for column in columns]
        found[name] = torch.cat(columns)
    return found
