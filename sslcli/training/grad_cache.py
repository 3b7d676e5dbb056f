"""The same loss and gradient for any split of the batch into micro-batches and processes.

Objectives are ``loss(project(sample) for all samples)``. If one micro-batch on one process is the whole batch, this is
an ordinary backward pass. Otherwise every micro-batch is projected, the rows of all micro-batches and processes are
gathered, the loss of all rows is taken with the rows as leaves, and the gradient of each row is backpropagated through
its projection. The graphs of several micro-batches are not kept but computed again (the gradient cache of Gao et al.
2021, arXiv:2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sslcli.encoders.batchnorm import batch_norms
from sslcli.training.strategy import Strategy
from sslcli.types import Loss

Outputs = dict[str, Tensor]


def backward(
    project: Callable[[int], Outputs],
    loss: Callable[[Mapping[str, Tensor]], Loss],
    num_micro: int,
    *,
    modules: Sequence[nn.Module],
    scale: Callable[[Tensor], Tensor],
    strategy: Strategy | None = None,
    recomputed: Sequence[nn.Module] = (),
) -> tuple[Loss, Outputs]:
    """Accumulate the gradient of the batch's loss into the parameters.

    Args:
        project: returns the per-sample outputs of this process's micro-batch m. If there are several micro-batches, it
            is called twice for each and must return the same values both times.
        loss: returns the loss of all rows.
        num_micro: number of micro-batches in this process's part of the batch.
        modules: the modules used by ``project`` and ``loss``; their BatchNorm statistics are updated once, in the pass
            with gradients.
        scale: applied to the loss before the backward pass (the fp16 scaler).
        strategy: adds up the gradients of the processes that share the batch in equal parts.
        recomputed: the modules with blocks that the backward pass computes again.

    Returns:
        The loss and the detached outputs of the whole batch, in order.
    """
    strategy = strategy or Strategy()
    ranks = strategy.ranks
    if num_micro == 1 and ranks.size == 1:
        outputs = project(0)
        result = loss(outputs)
        _backpropagate([scale(result.total)], [None], recomputed)
        return result, {name: rows.detach() for name, rows in outputs.items()}

    kept = project(0) if num_micro == 1 else None  # one graph is kept; several are computed again
    cached = [kept] if kept is not None else _without_graph(project, num_micro, modules)
    mine = {name: torch.cat([part[name] for part in cached]) for name in cached[0]}
    leaves = {name: ranks.gather(rows) for name, rows in mine.items()}
    for rows in leaves.values():
        rows.requires_grad_(rows.is_floating_point())
    result = loss(leaves)
    scale(result.total).backward()
    strategy.loss_done()

    start = {name: ranks.rank * len(rows) for name, rows in mine.items()}
    for m in range(num_micro):
        roots: list[Tensor] = []
        gradients: list[Tensor] = []
        for name, rows in (kept if kept is not None else project(m)).items():
            span = slice(start[name], start[name] + len(rows))
            start[name] = span.stop
            gradient = leaves[name].grad
            if rows.requires_grad and gradient is not None:
                roots.append(rows)
                gradients.append(gradient[span])
        if m == num_micro - 1:
            strategy.last_backward()
        _backpropagate(roots, gradients, recomputed)
    strategy.gradients_done()
    return result, {name: rows.detach() for name, rows in leaves.items()}


def _backpropagate(roots: list[Tensor], gradients: Sequence[Tensor | None], recomputed: Sequence[nn.Module]) -> None:
    """Accumulate gradients; a block that is computed again on the way moves BatchNorm's statistics no second time."""
    if roots:
        with frozen_statistics(recomputed):
            torch.autograd.backward(roots, gradients)


@torch.no_grad()
def _without_graph(project: Callable[[int], Outputs], num_micro: int, modules: Sequence[nn.Module]) -> list[Outputs]:
    with frozen_statistics(modules):
        return [project(m) for m in range(num_micro)]


@contextmanager
def frozen_statistics(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Keep BatchNorm's running statistics fixed in this block; in train mode it still normalises by the batch."""
    norms = batch_norms(*modules)
    saved = [(m.momentum, m.num_batches_tracked) for m in norms]
    for m in norms:
        m.momentum = 0.0
        m.num_batches_tracked = None if m.num_batches_tracked is None else m.num_batches_tracked.clone()
    try:
        yield
    finally:
        for m, (momentum, tracked) in zip(norms, saved):
            m.momentum = momentum
            m.num_batches_tracked = tracked
