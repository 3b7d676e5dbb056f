"""One mechanism for every layout: the same loss and gradient however the batch is cut into micro-batches.

Objectives are ``loss(project(sample) for all samples)``. Where one micro-batch holds the whole batch,
that is an ordinary backward pass. Otherwise (the gradient cache of Gao et al. 2021, arXiv:2101.06983):
project every micro-batch without a graph, take the loss of all rows at once with the rows as leaves,
then project each micro-batch again and push its rows' gradient through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslcli.types import Loss

Outputs = dict[str, Tensor]


def backward(
    project: Callable[[int], Outputs],
    loss: Callable[[Mapping[str, Tensor]], Loss],
    num_micro: int,
    *,
    modules: list[nn.Module],
    scale: Callable[[Tensor], Tensor],
) -> tuple[Loss, Outputs]:
    """Accumulate the gradient of the batch's loss into the parameters.

    Args:
        project: the per-sample outputs of micro-batch m; called twice where there are several, and must
            then give the same values twice.
        loss: the loss of all rows.
        num_micro: how many micro-batches make the batch.
        modules: what ``project`` runs; their BatchNorm statistics move once, in the pass with gradients.
        scale: applied to the loss before the backward pass (the fp16 scaler).

    Returns:
        The loss and the detached outputs of the whole batch, in order.
    """
    if num_micro == 1:
        outputs = project(0)
        result = loss(outputs)
        scale(result.total).backward()
        return result, {name: rows.detach() for name, rows in outputs.items()}

    with torch.no_grad(), frozen_statistics(modules):
        cached = [project(m) for m in range(num_micro)]
    gathered = {name: torch.cat([part[name] for part in cached]) for name in cached[0]}
    leaves = {name: rows.requires_grad_() if rows.is_floating_point() else rows for name, rows in gathered.items()}
    result = loss(leaves)
    scale(result.total).backward()
    start = dict.fromkeys(leaves, 0)
    for m in range(num_micro):
        roots: list[Tensor] = []
        gradients: list[Tensor] = []
        for name, rows in project(m).items():
            span = slice(start[name], start[name] + len(rows))
            start[name] = span.stop
            gradient = leaves[name].grad
            if rows.requires_grad and gradient is not None:
                roots.append(rows)
                gradients.append(gradient[span])
        if roots:
            torch.autograd.backward(roots, gradients)
    return result, {name: rows.detach() for name, rows in leaves.items()}


@contextmanager
def frozen_statistics(modules: list[nn.Module]) -> Iterator[None]:
    """Train-mode BatchNorm that normalises by the batch but leaves its running statistics alone."""
    norms = [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm)]
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


def has_batch_norm(modules: list[nn.Module]) -> bool:
    """Whether anything in there couples the samples of one forward pass."""
    return any(isinstance(m, _BatchNorm) for module in modules for m in module.modules())
