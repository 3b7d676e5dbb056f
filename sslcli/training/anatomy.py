"""Looks into one step: what is not finite in it, where that began, and which samples it comes from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sslcli.data.loader import Batch
from sslcli.run_dir.formatting import first_line
from sslcli.training.trainer import Trainer
from sslcli.types import Encoded


@dataclass
class Anatomy:
    """What was found in a step. Names of tensors are in the order in which the step makes them."""

    values: dict[str, float]  # loss, its parts, chance, gradient norm
    columns: dict[str, str]  # columns of the batch that are not finite, and how many of their values
    outputs: dict[str, str]  # outputs of modules that are not finite, forwards
    gradients: dict[str, str]  # gradients of parameters that are not finite
    backward: str | None  # the operation whose gradient is the first NaN, by torch's anomaly detection
    rows: list[int]  # rows of the batch whose input is not finite; if all inputs are, those whose projection is not

    @property
    def is_finite(self) -> bool:
        """Whether everything in the step is finite."""
        return not (self.columns or self.outputs or self.gradients) and all(map(math.isfinite, self.values.values()))


def examine(trainer: Trainer, batch: list[Batch]) -> Anatomy:
    """Compute the loss and the gradient of the trainer's next step on its ``batch``, without the update."""
    trainer.objective.before_step(trainer.progress)
    found: dict[str, str] = {}
    with _watched(trainer, found):
        loss, outputs = trainer.gradients(batch)
    names = {p: f"{part}.{name}" for part, m in _parts(trainer).items() for name, p in m.named_parameters()}
    grads = {name: p.grad for p, name in names.items() if p.grad is not None}
    norm = nn.utils.get_total_norm(list(grads.values()))
    columns = {name: torch.cat([micro[name] for micro in batch]) for name in batch[0]}
    values = {"loss": loss.total.detach(), **loss.parts, "gradient norm": norm}
    rows = _bad_rows(columns) or _bad_rows(outputs)
    return Anatomy(
        values={name: float(value) for name, value in values.items()},
        columns=_bad(columns),
        outputs=found,
        gradients=_bad(grads),
        backward=None if _is_finite(norm) else _anomaly(trainer, batch),
        rows=rows,
    )


def _anomaly(trainer: Trainer, batch: list[Batch]) -> str | None:
    trainer.optimizer.zero_grad(set_to_none=True)
    with warnings.catch_warnings(), torch.autograd.set_detect_anomaly(True):
        warnings.simplefilter("ignore")  # the traceback of the forward pass
        try:
            trainer.gradients(batch)
        except RuntimeError as error:
            return first_line(error)
    return None


@contextmanager
def _watched(trainer: Trainer, found: dict[str, str]) -> Iterator[None]:
    """Note in ``found`` which modules return what is not finite."""

    def hook(name: str) -> Any:
        def note(module: nn.Module, _: Any, output: Any) -> None:
            parts = (output.tokens, output.pooled) if isinstance(output, Encoded) else tree_leaves(output)
            bad = _bad({str(i): part for i, part in enumerate(parts) if isinstance(part, Tensor)})
            if bad and name not in found:
                found[name] = f"{type(module).__name__}: {next(iter(bad.values()))}"

        return note

    with ExitStack() as held:
        for part, module in _parts(trainer).items():
            for name, inner in module.named_modules():
                handle = inner.register_forward_hook(hook(f"{part}.{name}".rstrip(".")))
                held.callback(handle.remove)
        yield


def _parts(trainer: Trainer) -> dict[str, nn.Module]:
    return {"encoder": trainer.encoder, "objective": trainer.objective}


def _bad(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the tensors that are not finite, each as the number of its values that are not."""
    found = {}
    for name, tensor in tensors.items():
        count = int((~torch.isfinite(tensor)).sum())
        if count:
            found[name] = f"{count:,} of {tensor.numel():,} values of shape {list(tensor.shape)}"
    return found


def _bad_rows(tensors: Mapping[str, Tensor]) -> list[int]:
    """Return the rows (first dimension) in which one of the tensors is not finite."""
    bad = torch.stack([~torch.isfinite(tensor.reshape(len(tensor), -1)).all(1) for tensor in tensors.values()])
    return torch.nonzero(bad.any(0))[:, 0].tolist()


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value))
