"""The momentum encoder: a copy of encoder and head that follows them slowly and has no gradient."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives.heads import widened


class Teacher(nn.Module):
    """A momentum copy of (encoder, head), updated by ``follow``.

    Its parameters follow the student's; its buffers do not: BatchNorm in the teacher, which stays in train mode,
    has its own statistics (He et al. 2020, arXiv:1911.05722).

    Args:
        encoder: the student's encoder.
        head: the student's projector.
    """

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.head = copy.deepcopy(head).requires_grad_(False)
        self.students = (encoder, head)  # in a tuple, so that they are no submodules: not saved or trained twice

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Set teacher = momentum * teacher + (1 - momentum) * student, for every parameter (equation 2)."""
        for mine, student in zip((self.encoder, self.head), self.students):
            torch._foreach_lerp_(list(mine.parameters()), list(student.parameters()), 1 - momentum)

    @torch.no_grad()
    def project(self, features: Features, i: int) -> Tensor:
        """Return the projections (B, D) of the clean view ``i``, in float32 or wider."""
        return widened(self.head(features.teacher(self.encoder, i)[0].pooled))


def teacher_weights(objective: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the weights of the momentum encoder in ``state``, the state dict of ``objective``; None without a teacher.

    Of several teachers, in a joint objective, it is that of the first part that has one.
    """
    names = (name for name, module in objective.named_modules() if isinstance(module, Teacher))
    prefix = next((f"{name}.encoder." for name in names), None)
    if prefix is None:
        return None
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def checked_momentum(momentum: float) -> float:
    """Return ``momentum`` unchanged.

    Raises:
        ValueError: it is not in [0, 1].
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum={momentum} must be from 0 to 1; 0.99 suits short runs, 0.999 long ones")
    return momentum


def rising(momentum: float, progress: float) -> float:
    """Return a momentum that rises from ``momentum`` to 1 along half a cosine (BYOL, Grill et al. 2020, C.1)."""
    return 1 - (1 - momentum) * (1 + math.cos(math.pi * progress)) / 2
