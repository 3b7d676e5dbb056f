"""Prevent BatchNorm from leaking the positive: encode a batch in groups, or shuffled over the processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslcli.distributed.ranks import Ranks
from sslcli.encoders.batchnorm import batch_norms
from sslcli.features import Encode
from sslcli.randomness import to_device
from sslcli.types import Encoded, View


def through(encode: Encode, head: nn.Module) -> Encode:
    """Compose ``encode`` with ``head`` on the pooled vector, so that the head's BatchNorm sees the same groups.

    What it returns has no tokens: nobody reads them, and a bag of words would have to look them up.
    """

    def apply(view: View) -> Encoded:
        pooled = head(encode(view).pooled)
        return Encoded(pooled[:, None, :0], pooled)

    return apply


def in_groups(encode: Encode, groups: int, *modules: nn.Module) -> Encode:
    """Return ``encode`` applied to the groups ``n % groups`` of the batch, each with its own BatchNorm statistics.

    This simulates several devices on one (SplitBatchNorm of MoCo's CIFAR demonstration).
    The running statistics of ``modules`` are updated once, by the mean over the groups.
    """
    if groups == 1:
        return encode
    norms = batch_norms(*modules)

    def apply(view: View) -> Encoded:
        order = torch.arange(len(view.x), device=view.x.device).view(-1, groups).T.flatten()
        parts = []
        for k, part in enumerate(order.chunk(groups)):
            with _momentum_of_group(groups, k, norms):
                parts.append(encode(view.rows(part)))
        return _unsorted(_cat(parts), order)

    return apply


def shuffled(encode: Encode, ranks: Ranks, seed: int) -> Encode:
    """Return ``encode`` applied to the samples of all processes in a common random order, an equal part on each.

    A query and its key are then normalised in different BatchNorm batches; a shared batch would reveal the positive
    (shuffling BN, He et al. 2020, section 3.3). With one process the batch is permuted before ``encode`` splits it.

    Args:
        encode: the function that encodes the part of this process.
        ranks: the processes.
        seed: seed of the order, the same on all processes.
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
        return Encoded(encoded.tokens[:, :0], pooled)  # no tokens: sending them would cost more than O(D) per sample

    return apply


@contextmanager
def _momentum_of_group(groups: int, k: int, norms: list[_BatchNorm]) -> Iterator[None]:
    """Set the momentum for group k so that in the end every group has contributed with weight momentum / groups."""
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
