"""Norms and cosines of the gradients of a joint loss's terms, as a function and as a hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.data.loader import Batch
from sslcli.objectives.base import Objective
from sslcli.training.grad_cache import Outputs, backward, frozen_statistics
from sslcli.training.hooks import Hook
from sslcli.training.strategy import Strategy
from sslcli.training.trainer import Trainer
from sslcli.types import Loss


def gradient_conflict(
    project: Callable[[int], Outputs],
    objective: Objective,
    num_micro: int,
    *,
    modules: Sequence[nn.Module],
    scaler: torch.amp.GradScaler,
    weight: nn.Parameter,
    strategy: Strategy,
) -> dict[str, Tensor]:
    """Return the norms of the terms' weighted gradients of ``weight``, and the cosine of every two of them.

    Each term needs a backward pass of its own over the whole batch, so this is meant for log steps only. It works for
    any split of the batch and changes no state. The arguments are those of ``backward``.
    """
    found: dict[str, Tensor] = {}
    for name in objective.terms:

        def one_term(rows: Mapping[str, Tensor], name: str = name) -> Loss:
            return Loss(objective.loss(rows).terms[name], {})

        with frozen_statistics(modules):
            backward(project, one_term, num_micro, modules=modules, scale=scaler.scale, strategy=strategy)
        found[name] = torch.zeros_like(weight) if weight.grad is None else weight.grad / scaler.get_scale()
        for module in modules:
            module.zero_grad(set_to_none=True)
    report = {f"gradient_norm/{name}": gradient.norm() for name, gradient in found.items()}
    for one, two in combinations(found, 2):
        cosine = F.cosine_similarity(found[one].flatten(), found[two].flatten(), dim=0)
        report[f"gradient_cosine/{one}/{two}"] = cosine
    return report


def last_weight(encoder: nn.Module) -> nn.Parameter:
    """Return the encoder's last weight matrix or kernel, the last parameter that all terms share."""
    return [p for p in encoder.parameters() if p.ndim > 1 and p.requires_grad][-1]


class GradientConflict(Hook):
    """Compares the terms' gradients at every step that writes a line of metrics.

    Args:
        every: steps between lines of metrics.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._found: dict[str, Tensor] = {}

    def before_step(self, trainer: Trainer, batch: list[Batch]) -> None:
        if trainer.objective.terms and (trainer.step + 1) % self._every == 0:
            self._found = gradient_conflict(
                trainer.projection(batch),
                trainer.objective,
                len(batch),
                modules=trainer.modules,
                scaler=trainer.scaler,
                weight=last_weight(trainer.encoder),
                strategy=trainer.strategy,
            )

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        found, self._found = self._found, {}
        return {name: float(value) for name, value in found.items()}
