"""LARS (You et al. 2017, arXiv:1708.03888) as BYOL, MoCo v3, Barlow Twins and VICReg compute it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lars(Optimizer):
    """SGD with momentum, in which each adapted parameter w has a rate of its own.

    With u = gradient + weight_decay * w, an adapted parameter moves by trust_coeff * |w| / |u| * u instead of u, and
    by u where w or u is zero. timm's LARS divides by |gradient| + weight_decay * |w|, and does not adapt where the
    gradient is zero, as it is at first behind the zero scale that ends a residual branch.

    Args:
        groups: groups of parameters, with the key ``adapt`` where it differs.
        lr: the learning rate.
        momentum: momentum of the adapted gradients; the rate is applied after it.
        weight_decay: added to the gradient before it is adapted.
        trust_coeff: the share of its norm by which an adapted parameter moves, at a rate of 1.
        adapt: whether parameters are adapted.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        *,
        momentum: float,
        trust_coeff: float,
        weight_decay: float = 0.0,
        adapt: bool = True,
    ) -> None:
        defaults = {"momentum": momentum, "weight_decay": weight_decay, "trust_coeff": trust_coeff, "adapt": adapt}
        super().__init__(groups, {"lr": lr, **defaults})

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # those of a checkpoint with timm's LARS have no ``adapt``
            group.setdefault("adapt", bool(group["weight_decay"]) or group.get("always_adapt", False))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: Mapping[str, Any]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        updates = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        if group["adapt"]:
            lengths, steps = (torch.stack(torch._foreach_norm(tensors)) for tensors in (parameters, updates))
            ratios = torch.where((lengths > 0) & (steps > 0), group["trust_coeff"] * lengths / steps, 1.0)
            torch._foreach_mul_(updates, ratios.unbind())
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        moving = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_mul_(moving, group["momentum"])
        torch._foreach_add_(moving, updates)
        torch._foreach_add_(parameters, moving, alpha=-group["lr"])
