"""Softmax regression on frozen features with many settings in parallel, without autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.run_dir.console import progress

_MOMENTUM = 0.9
_PIECE = 4096  # rows at a time


@dataclass(frozen=True)
class Setting:
    """How one classifier is trained."""

    lr: float
    weight_decay: float  # adds weight_decay / 2 |W|^2 to the loss; the biases have none
    standardise: bool  # scale each column to mean 0 and the same variance; else divide all columns by one number

    def __str__(self) -> str:
        norm = "with" if self.standardise else "without"
        return f"learning rate {self.lr:g}, weight decay {self.weight_decay:g}, {norm} BatchNorm"


def grid(lrs: Sequence[float], weight_decays: Sequence[float], standardise: Sequence[bool]) -> list[Setting]:
    """Return every combination."""
    return [Setting(*values) for values in product(lrs, weight_decays, standardise)]


@dataclass(frozen=True)
class Scale:
    """A scaling of rows to mean squared norm 1, so that learning rates are comparable between features."""

    mean: Tensor  # (D,)
    factor: Tensor  # (D,)

    @classmethod
    def of(cls, rows: Tensor, part: Tensor | None = None, *, standardise: bool) -> Scale:
        """Fit the scaling to the rows (N, D) in ``part``; None is all.

        On fixed features, standardising is equivalent to BatchNorm without scale and shift. The rows are read piece by
        piece, since they may fill most of the memory.
        """
        part = torch.arange(len(rows)) if part is None else part

        def average(change: Callable[[Tensor], Tensor]) -> Tensor:
            total = torch.zeros(rows.shape[1], dtype=torch.float64)
            for index in part.split(_PIECE):  # a list of sums, each behind a freed piece, would keep the heap growing
                total += change(rows[index].double()).sum(0)
            return total / len(part)

        mean = average(lambda piece: piece)
        variance = average(lambda piece: (piece - mean).pow(2))
        if not standardise:
            length = (variance + mean.pow(2)).sum().sqrt()
            return cls(torch.zeros(rows.shape[1]), (torch.ones_like(mean) / (length + 1e-12)).float())
        scale = (variance + (mean - mean.mean()).pow(2)).mean().sqrt()  # the std of all entries together
        factor = 1 / (variance.sqrt() + 1e-3 * scale + 1e-12)  # constant columns stay near 0
        length = (variance * factor.pow(2)).sum().sqrt()
        return cls(mean.float(), (factor / (length + 1e-12)).float())

    def __call__(self, rows: Tensor, device: torch.device) -> Tensor:
        """Return the scaled rows (B, D), on ``device``."""
        mean, factor = self.mean.to(device), self.factor.to(device)
        return (rows.to(device) - mean) * factor


@dataclass(frozen=True)
class Classifiers:
    """G classifiers of C classes, one for each setting; they share the scaling of the rows."""

    settings: list[Setting]
    scale: Scale
    weight: Tensor  # (D, G, C)
    bias: Tensor  # (G, C)

    def logits(self, rows: Tensor) -> Tensor:
        """Return the logits (B, G, C) of rows (B, D)."""
        scaled = self.scale(rows, self.weight.device)
        return (scaled @ self.weight.flatten(1)).unflatten(1, self.bias.shape) + self.bias

    def classes(self, rows: Tensor, *, chunk: int = 2048) -> Tensor:
        """Return the class (G, N) that each classifier predicts for rows (N, D)."""
        return torch.cat([self.logits(part).argmax(2).cpu() for part in rows.split(chunk)]).T

    def scores(self, rows: Tensor, *, chunk: int = 2048) -> Tensor:
        """Return the logits (G, N, C) of each classifier for rows (N, D)."""
        return torch.cat([self.logits(part).cpu() for part in rows.split(chunk)]).transpose(0, 1)

    def score(
        self, rows: Tensor, labels: Tensor, part: Tensor | None = None, *, chunk: int = 2048
    ) -> tuple[Tensor, Tensor]:
        """Return each classifier's accuracy (G,) and mean cross-entropy (G,) on rows (N, D), or those in ``part``."""
        part = torch.arange(len(rows)) if part is None else part
        several = labels.dim() == 2
        right = torch.zeros(len(self.settings), dtype=torch.float64)
        loss = torch.zeros(len(self.settings), dtype=torch.float64)
        for index in part.split(chunk):
            logits, truth = self.logits(rows[index]).cpu(), labels[index]
            if several:
                every = truth[:, None].float().expand_as(logits)
                loss += F.binary_cross_entropy_with_logits(logits, every, reduction="none").mean(2).double().sum(0)
                continue
            right += (logits.argmax(2) == truth[:, None]).sum(0)
            each = F.cross_entropy(logits.flatten(0, 1), truth.repeat_interleave(logits.shape[1]), reduction="none")
            loss += each.unflatten(0, logits.shape[:2]).double().sum(0)
        return right / len(part), loss / len(part)


def fit(
    rows: Tensor,
    labels: Tensor,
    settings: list[Setting],
    *,
    part: Tensor | None = None,
    num_classes: int,
    steps: int,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> Classifiers:
    """Train a classifier for each setting on the same batches, by SGD with momentum 0.9 and a cosine schedule to 0.

    Args:
        rows: (N, D) features.
        labels: (N,) classes below ``num_classes``; or (N, C) bool, several labels a sample, each of which gets a
            logistic regression of its own.
        settings: all with the same ``standardise``.
        part: the rows to train on; None is all.
        num_classes: number of classes C.
        steps: number of steps.
        batch_size: rows per step; all rows if there are no more.
        seed: seed of the order of rows.
        device: device to compute on.
    """
    assert len({setting.standardise for setting in settings}) == 1
    part = torch.arange(len(rows)) if part is None else part
    scale = Scale.of(rows, part, standardise=settings[0].standardise)
    weight = torch.zeros(rows.shape[1], len(settings), num_classes, device=device)
    bias = torch.zeros(len(settings), num_classes, device=device)
    lr, decay = (
        torch.tensor([getattr(setting, name) for setting in settings], device=device)[:, None]
        for name in ("lr", "weight_decay")
    )
    found = Classifiers(settings, scale, weight, bias)
    weight_velocity, bias_velocity = torch.zeros_like(weight), torch.zeros_like(bias)
    bar = progress("fitting a classifier", steps, "steps")
    for step, positions in enumerate(_batches(len(part), batch_size, steps, seed)):
        index = part[positions]
        batch = rows[index]
        # The gradient of the cross-entropy with respect to the logits is softmax minus one-hot.
        # Of a logistic regression it is the sigmoid minus the label.
        if labels.dim() == 2:
            error = found.logits(batch).sigmoid() - labels[index].to(device)[:, None].float()
        else:
            error = found.logits(batch).softmax(2)
            error[torch.arange(len(index), device=device), :, labels[index].to(device)] -= 1
        error /= len(index)
        gradient = (scale(batch, device).T @ error.flatten(1)).view_as(weight)
        weight_velocity.mul_(_MOMENTUM).add_(gradient + decay * weight)
        bias_velocity.mul_(_MOMENTUM).add_(error.sum(0))
        rate = lr * (1 + math.cos(math.pi * step / steps)) / 2
        weight -= rate * weight_velocity
        bias -= rate * bias_velocity
        bar.update()
    bar.close()
    return found


def _batches(count: int, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield ``steps`` index tensors of ``size`` out of ``count``, in shuffled epochs that run into each other."""
    if size >= count:
        yield from (torch.arange(count) for _ in range(steps))
        return
    generator = torch.Generator().manual_seed(seed % 2**63)
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(queue) < size:
            queue = torch.cat([queue, torch.randperm(count, generator=generator)])
        batch, queue = queue[:size], queue[size:]
        yield batch
