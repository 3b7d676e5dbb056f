"""Against BatchNorm's leak: a batch encoded in groups, or spread over the processes in another order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslcli.distributed import Ranks
from sslcli.encoders.batchnorm import batch_norms
from sslcli.features import Encode
from sslcli.randomness import to_device
from sslcli.types import Encoded, View


def through(encode: Encode, head: nn.Module) -> Encode:
    """``encode`` with the pooled vector sent through ``head``, so that its BatchNorm sees the same company."""

    def apply(view: View) -> Encoded:
        encoded = encode(view)
        return Encoded(encoded.tokens, head(encoded.pooled), encoded.valid)

    return apply


def in_groups(encode: Encode, groups: int, *modules: nn.Module) -> Encode:
    """``encode`` on the interleaved parts ``n % groups`` of the batch, each with BatchNorm statistics of its own.

    It does on one device what several would do to the batch (SplitBatchNorm of MoCo's CIFAR demonstration).
    The running statistics of ``modules`` move once, by the mean over the groups.
    """
    if groups == 1:
        return encode
    norms = batch_norms(*modules)

    def apply(view: View) -> Encoded:
        order = torch.arange(len(view.x), device=view.x.device).view(-1, groups).T.flatten()
        parts = []
        for k, part in enumerate(order.chunk(groups)):
            with _one_of(groups, k, norms):
                parts.append(encode(view.rows(part)))
        return _unsorted(_cat(parts), order)

    return apply


def shuffled(encode: Encode, ranks: Ranks, seed: int) -> Encode:
    """``encode`` with the samples of all processes in a common random order, each taking an equal part.

    Queries and keys then never share a BatchNorm batch, which would give the positive away (shuffling BN,
    He et al. 2020, section 3.3). With one process it permutes the batch before ``encode`` cuts it.

    Args:
        encode: what runs on this process's part.
        ranks: the processes.
        seed: of the order; the same on all of them.
    """

    def apply(view: View) -> Encoded:
        size = len(view.x)
        order = to_device(
            torch.randperm(ranks.size * size, generator=torch.Generator().manual_seed(seed)), view.x.device
        )
        mine = slice(ranks.rank * size, (ranks.rank + 1) * size)
        gathered = View(ranks.gather(view.x), view.field, None if view.valid is None else ranks.gather(view.valid))
        encoded = encode(gathered.rows(order[mine]))
        if ranks.size == 1:
            return _unsorted(encoded, order)
        pooled = _unsort(ranks.gather(encoded.pooled), order)[mine]
        return Encoded(encoded.tokens[:, :0], pooled)  # tokens would be more than O(D) a sample to send back

    return apply


@contextmanager
def _one_of(groups: int, k: int, norms: list[_BatchNorm]) -> Iterator[None]:
    """Momenta such that, after all groups, each has moved the running statistics by momentum / groups."""
    saved = [norm.momentum for norm in norms]
    for norm, momentum in zip(norms, saved):
        share = (momentum or 0.0) / groups
        norm.momentum = share / (1 - (groups - 1 - k) * share)
    try:
        yield
    finally:
        for norm, momentum in zip(norms, saved):
            norm.momentum = momentum


def _cat(parts: list[Encoded]) -> Encoded:
    valid = [part.valid for part in parts if part.valid is not None]
    return Encoded(
        torch.cat([part.tokens for part in parts]),
        torch.cat([part.pooled for part in parts]),
        torch.cat(valid) if valid else None,
    )


def _unsorted(encoded: Encoded, order: Tensor) -> Encoded:
    valid = None if encoded.valid is None else _unsort(encoded.valid, order)
    return Encoded(_unsort(encoded.tokens, order), _unsort(encoded.pooled, order), valid)


def _unsort(rows: Tensor, order: Tensor) -> Tensor:
    return rows[order.argsort()]
