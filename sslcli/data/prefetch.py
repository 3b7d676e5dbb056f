"""The next batch travels to the GPU while the present one is computed on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

Batch = dict[str, Tensor]


def on_device(batches: Iterator[list[Batch]], device: torch.device) -> Iterator[list[Batch]]:
    """The same batches on ``device``, on a GPU copied from pinned memory by a stream of their own.

    The host issues a step and comes back for the next batch while the GPU is still busy with the step, so
    the copy and the loop's wait for data fall into that time.
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
            column.record_stream(computing)  # allocated on the other stream: not to be reused while read here
        yield sent
