"""The update of the weights from their gradients; a step that is not finite changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sslcli.encoders.base import Encoder
from sslcli.objectives.base import Objective, scalar
from sslcli.training.grad_cache import Outputs
from sslcli.training.moving_state import Kept, MovingState, flat_groups, optimizer_tensors
from sslcli.training.strategy import Strategy
from sslcli.types import Loss


class Outcome(NamedTuple):
    """What came of a step, on the device."""

    values: dict[str, Tensor]  # its scalars, which are logged: loss, its parts, chance
    norm: dict[
        str, Tensor
    ]  # the gradient norm under its name; empty with fp16, whose scaler makes it infinite at times
    finite: Tensor  # bool scalar, whether all of these are finite


class Update:
    """Makes the optimizer's steps, and leaves out those whose loss or gradient is not finite.

    Of a step that is left out, weights, optimizer, teacher, queue, centres and statistics of BatchNorm stay as they
    were before it. On a CPU the host reads whether the step is finite. On a GPU it does not wait for that: a fused
    optimizer reads it on the device (``found_inf``), and what else the step has moved is put back there, as is what an
    optimizer has moved that is not fused; only its first step with a parameter is read by the host, and a counter of
    its own may move.

    Args:
        encoder, objective: what is trained.
        optimizer: the optimizer of their parameters.
        scaler: enabled for fp16; it finds its scale by steps that are left out.
        device: the device of all of them.
        clip: the maximum gradient norm, or None.
        strategy: knows the gradients.
    """

    def __init__(
        self,
        encoder: Encoder,
        objective: Objective,
        optimizer: Optimizer,
        scaler: torch.amp.GradScaler,
        device: torch.device,
        clip: float | None,
        strategy: Strategy,
    ) -> None:
        self.objective, self.optimizer, self.scaler, self.clip = objective, optimizer, scaler, clip
        self._strategy = strategy
        self.reads_on_device = device.type == "cuda" and not scaler.is_enabled()
        self._device = device
        self._moving = MovingState(encoder, objective)
        self._kept = Kept([])

    def begin(self) -> None:
        """Note what the step is going to move; before ``Objective.before_step``."""
        self._kept = self._moving.keep()

    def __call__(self, loss: Loss, outputs: Outputs) -> Outcome:
        """Clip the gradients, update the weights, and pass the outputs to the objective."""
        values = {"loss": loss.total.detach(), **loss.parts}
        if loss.chance is not None:
            values["chance"] = scalar(loss.chance, loss.total)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        taken: bool | None
        if self.scaler.is_enabled():
            norms: dict[str, Tensor] = {}
            finite = all_finite(values)
            taken = self._scaled_step(parameters, finite)
        else:
            norms = {"gradient norm": self._strategy.norm(parameters)}
            finite = all_finite({**values, **norms})
            self._clip(parameters, norms["gradient norm"])
            taken = self._step(parameters, finite)
        self.optimizer.zero_grad(set_to_none=True)
        if taken is None or taken:
            self.objective.after_step(outputs)
        if taken is None:
            self._kept.restore_unless(finite)
        elif not taken:
            self._kept.restore()
        return Outcome(values, norms, finite)

    def _step(self, parameters: list[nn.Parameter], finite: Tensor) -> bool | None:
        """Make the optimizer's step if all is finite; return whether it did, None if the host does not know."""
        optimizer: Any = self.optimizer
        fused = bool(optimizer.defaults.get("fused"))
        known = fused or all(parameter in optimizer.state for parameter in parameters)  # and no state is new
        if not self.reads_on_device or not known:
            taken = bool(finite)
            if taken:
                optimizer.step()
            return taken
        if not fused:
            kept = Kept(flat_groups(optimizer_tensors(optimizer, self._device)))
            optimizer.step()
            kept.restore_unless(finite)
            return None
        optimizer.grad_scale, optimizer.found_inf = None, (~finite).float()  # where a scaler puts them
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
        return None

    def _scaled_step(self, parameters: list[nn.Parameter], finite: Tensor) -> bool:
        """Make the step of fp16: the scaler leaves out those with infinite gradients, and lowers its scale."""
        first = parameters[0].grad
        assert first is not None
        first += torch.where(finite, 0.0, torch.nan)  # so that it finds an infinite loss, too
        self.scaler.unscale_(self.optimizer)
        self._clip(parameters, self._strategy.norm(parameters))
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= before  # only an infinite gradient lowers it, and it has synchronised

    def _clip(self, parameters: list[nn.Parameter], norm: Tensor) -> None:
        if self.clip is not None:
            self._strategy.clip(parameters, self.clip, norm)


def all_finite(values: Mapping[str, Tensor]) -> Tensor:
    """Return whether all scalars are finite, as a bool scalar on their device."""
    return torch.isfinite(torch.stack([value.detach().float() for value in values.values()])).all()
