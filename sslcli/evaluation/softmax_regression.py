"""Softmax regression of one set of frozen features by many settings side by side, without autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

_MOMENTUM = 0.9
_PIECE = 4096  # rows at a time


@dataclass(frozen=True)
class Setting:
    """How one classifier is trained."""

    lr: float
    weight_decay: float  # of the weights, not of the biases: adds weight_decay / 2 |W|^2 to the loss
    standardise: bool  # each column to mean 0 and variance 1; without, all are divided by one number

    def __str__(self) -> str:
        norm = "with" if self.standardise else "without"
        return f"learning rate {self.lr:g}, weight decay {self.weight_decay:g}, {norm} BatchNorm"


def grid(lrs: Sequence[float], weight_decays: Sequence[float], standardise: Sequence[bool]) -> list[Setting]:
    """Every combination."""
    return [Setting(*values) for values in product(lrs, weight_decays, standardise)]


@dataclass(frozen=True)
class Scale:
    """Rows as a classifier reads them: of mean square length 1, so that learning rates mean the same everywhere."""

    mean: Tensor  # (D,)
    factor: Tensor  # (D,)

    @classmethod
    def of(cls, rows: Tensor, part: Tensor | None = None, *, standardise: bool) -> Scale:
        """Fitted on the rows (N, D) in ``part``; null is all.

        Standardising is what BatchNorm without weights comes to on features that stand still. Read piece by piece,
        since the rows may fill most of the memory.
        """
        part = torch.arange(len(rows)) if part is None else part

        def average(change: Callable[[Tensor], Tensor]) -> Tensor:
            sums = [change(rows[index].double()).sum(0) for index in part.split(_PIECE)]
            return torch.stack(sums).sum(0) / len(part)

        mean = average(lambda piece: piece)
        variance = average(lambda piece: (piece - mean).pow(2))
        if not standardise:
            length = (variance + mean.pow(2)).sum().sqrt()
            return cls(torch.zeros(rows.shape[1]), (torch.ones_like(mean) / (length + 1e-12)).float())
        scale = (variance + (mean - mean.mean()).pow(2)).mean().sqrt()  # the std of all numbers together
        factor = 1 / (variance.sqrt() + 1e-3 * scale + 1e-12)  # dead columns stay dead
        length = (variance * factor.pow(2)).sum().sqrt()
        return cls(mean.float(), (factor / (length + 1e-12)).float())

    def __call__(self, rows: Tensor, device: torch.device) -> Tensor:
        """The rows (B, D) scaled, on ``device``."""
        mean, factor = self.mean.to(device), self.factor.to(device)
        return (rows.to(device) - mean) * factor


@dataclass(frozen=True)
class Classifiers:
    """One classifier for each setting; all settings share the rows' scale."""

    settings: list[Setting]
    scale: Scale
    weight: Tensor  # (D, G, C)
    bias: Tensor  # (G, C)

    def logits(self, rows: Tensor) -> Tensor:
        """(B, G, C) of rows (B, D)."""
        scaled = self.scale(rows, self.weight.device)
        return (scaled @ self.weight.flatten(1)).unflatten(1, self.bias.shape) + self.bias

    def score(self, rows: Tensor, labels: Tensor, *, chunk: int = 2048) -> tuple[Tensor, Tensor]:
        """Accuracy (G,) and mean cross-entropy (G,) of each on rows (N, D) with their labels (N,)."""
        right = torch.zeros(len(self.settings), dtype=torch.float64)
        loss = torch.zeros(len(self.settings), dtype=torch.float64)
        for part, truth in zip(rows.split(chunk), labels.split(chunk)):
            logits = self.logits(part).cpu()
            right += (logits.argmax(2) == truth[:, None]).sum(0)
            each = F.cross_entropy(logits.flatten(0, 1), truth.repeat_interleave(logits.shape[1]), reduction="none")
            loss += each.unflatten(0, logits.shape[:2]).double().sum(0)
        return right / len(rows), loss / len(rows)


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
    """Train a classifier for each setting on the same batches, by SGD with momentum 0.9 and a cosine to 0.

    Args:
        rows: (N, D) features.
        labels: (N,) classes below ``num_classes``.
        settings: all with the same ``standardise``.
        part: the rows to train on; null is all.
        num_classes: C.
        steps: number of steps.
        batch_size: rows a step; all of them where there are no more.
        seed: of the order.
        device: where to compute.
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
    weight_speed, bias_speed = torch.zeros_like(weight), torch.zeros_like(bias)
    for step, places in enumerate(_batches(len(part), batch_size, steps, seed)):
        index = part[places]
        batch = rows[index]
        # The gradient of the cross-entropy by the logits is softmax less one-hot.
        error = found.logits(batch).softmax(2)
        error[torch.arange(len(index), device=device), :, labels[index].to(device)] -= 1
        error /= len(index)
        gradient = (scale(batch, device).T @ error.flatten(1)).view_as(weight)
        weight_speed.mul_(_MOMENTUM).add_(gradient + decay * weight)
        bias_speed.mul_(_MOMENTUM).add_(error.sum(0))
        rate = lr * (1 + math.cos(math.pi * step / steps)) / 2
        weight -= rate * weight_speed
        bias -= rate * bias_speed
    return found


def _batches(count: int, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """``steps`` index tensors of ``size`` out of ``count``, each sample once before any comes again."""
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
