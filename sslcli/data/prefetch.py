"""Copies the next batch to the GPU while the current step is computed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

Batch = dict[str, Tensor]


def on_device(batches: Iterator[list[Batch]], device: torch.device) -> Iterator[list[Batch]]:
    """Yield the batches on ``device``; for a GPU they are copied from pinned memory on a separate stream.

    The host asks for the next batch while the GPU still computes the current step, so that loading and copying
    overlap with the computation.
    """
    if device.type != "cuda":
        for batch in batches:
            yield [{name: column.to(device) for name, column in micro.items()} for micro in batch]
        return
    copying = torch.cuda.Stream(device)
    while True:
        host = next(batches)
        with torch.cuda.stream(copying):
            sent = [{name: column.to(device, non_blocking=True) for name, column in micro.items()} for micro in host]
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for column in (column for micro in sent for column in micro.values()):
            column.record_stream(computing)  # its memory must not be reused while this stream reads it
        yield sent
