"""Counts the steps that were left out because they were not finite, without synchronising with the device in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from sslcli.config.quoting import override
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint

LIMIT = 20  # steps left out in a row that end a run


class NanGuard:
    """A record on the device of the steps that are not finite; the host reads it at log lines and before saving.

    Args:
        device: the device of a step's scalars.
        run_dir: the run directory, whose newest checkpoint the error message names.
        warn: called with a line about steps that were left out.
    """

    def __init__(self, device: torch.device, run_dir: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self._run_dir, self._warn = run_dir, warn
        self._names: list[str] = []
        self._rates: dict[int, float] = {}  # learning rate of each step since the last check
        self._updates, self._last = 0, 0  # steps of this session, and the last one
        # The first such step since the last check and the index of its first term, how many, and how many in a row.
        self._seen = torch.tensor([-1, -1, 0, 0], device=device)

    def update(self, step: int, values: Mapping[str, Tensor], lr: float = 0.0) -> None:
        """Record whether a scalar of ``values`` is not finite in ``step``, and if so the first one."""
        self._names = list(values)
        self._rates[step] = lr
        self._updates, self._last = self._updates + 1, step
        bad = ~torch.isfinite(torch.stack([value.detach().float() for value in values.values()]))
        first, index, count, row = self._seen.unbind()
        new = first < 0
        here = torch.stack(
            [
                torch.where(new, step, first),
                torch.where(new, bad.int().argmax(), index),
                count + 1,
                row + 1,
            ]
        )
        gone = torch.stack([first, index, count, torch.zeros_like(row)])
        self._seen = torch.where(bad.any(), here, gone)

    def check(self, *, is_last: bool = False) -> None:
        """Warn of steps that were left out since the last check; synchronises with the device.

        Args:
            is_last: whether the run ends here.

        Raises:
            UserError: the last steps were all left out, so that the run learns nothing any more.
        """
        first, index, count, row = self._seen.tolist()
        if count:
            name = self._names[index]
            if row >= LIMIT or (is_last and row == self._updates):
                kept = checkpoint.steps(self._run_dir)
                state = f"the last checkpoint is {kept[0]}" if kept else "there is no checkpoint yet"
                raise UserError(
                    f"The {name} is not finite, and since step {self._last - row + 2} no step has changed anything; "
                    f"{state}. Lower optimizer.lr, set train.clip=1, or use train.precision=fp32.\n"
                    f"Where it began: {self._replay(self._last - row + 1)}"
                )
            more = f", and so were {count - 1} later steps" if count > 1 else ""
            self._warn(
                f"In step {first + 1} the {name} was not finite (learning rate {self._rates.get(first, 0.0):.3g}), so "
                f"it was left out{more}. Where it began: {self._replay(first)}"
            )
            self._seen = self._seen.new_tensor([-1, -1, 0, row])
        self._rates.clear()

    def _replay(self, step: int) -> str:
        return f"ssl-train replay={step + 1} {override('run_dir', self._run_dir)}"

    def check_weights(self, modules: list[torch.nn.Module], step: int) -> None:
        """Do what ``check`` does, and raise an error if a weight is not finite.

        Raises:
            UserError: with the step.
        """
        self.check()
        if not all_finite(modules):
            raise UserError(
                f"The weights became non-finite in step {step}. Nothing broken was saved. "
                "Lower optimizer.lr or set train.clip=1."
            )


def all_finite(modules: list[torch.nn.Module]) -> bool:
    """Return whether every floating-point parameter and buffer is finite; synchronises with the device."""
    tensors = [
        tensor
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
        if tensor.is_floating_point()
    ]
    if not tensors:
        return True
    with torch.no_grad():
        norms = torch._foreach_norm(tensors, float("inf"))
        return bool(torch.isfinite(torch.stack([n.float() for n in norms])).all())
