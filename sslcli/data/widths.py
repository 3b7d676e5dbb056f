"""Cuts the padding off a batch of texts that its longest text does not need: less to send, and less to compute.

A dataset pads all texts to one length, so that they can be cached and compared with their field. A batch is as wide as
its longest text, rounded up (``Field.rounded``). The width is found on the host, so that a GPU is never waited for;
padding changes nothing that is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.types import Field, Spec


def trimmed(columns: Mapping[str, Tensor], spec: Spec) -> dict[str, Tensor]:
    """Return the columns of a batch, those of tokens no wider than their longest text needs.

    Columns that are on a device already were cut when they were fetched (``OnDevice``).
    """
    return {name: _trimmed(column, spec.get(name)) for name, column in columns.items()}


def _trimmed(ids: Tensor, field: Field | None) -> Tensor:
    if field is None or field.pad is None or ids.device.type != "cpu" or not len(ids):
        return ids
    return ids[:, : field.width_of(ids)].contiguous()


def joined(pieces: Sequence[Mapping[str, Tensor]], spec: Spec) -> dict[str, Tensor]:
    """Return several batches as one, as wide as the widest of them."""
    if len(pieces) == 1:
        return dict(pieces[0])
    found: dict[str, Tensor] = {}
    for name in pieces[0]:
        columns, field = [piece[name] for piece in pieces], spec.get(name)
        if field is not None and field.pad is not None:
            width = max(column.shape[1] for column in columns)
            columns = [F.pad(column, (0, width - column.shape[1]), value=field.pad) for column in columns]
        found[name] = torch.cat(columns)
    return found
