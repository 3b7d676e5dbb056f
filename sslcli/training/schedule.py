"""Learning rate schedules: multipliers of ``optimizer.lr`` as functions of the share of training done."""

from __future__ import annotations

import math

from sslcli.config.ranges import NotNegative, Share


class Schedule:
    """A multiplier of the learning rate."""

    def __call__(self, progress: float) -> float:
        """Return the multiplier at ``progress`` in [0, 1]."""
        raise NotImplementedError


class Cosine(Schedule):
    """Linear warm-up, then half a cosine down to ``final`` (Loshchilov and Hutter 2017).

    Args:
        warmup: share of training used for the warm-up.
        final: the multiplier at the end.
        initial: the multiplier at the start of the warm-up.
        from_start: let the cosine begin at the start of training instead of at the end of the warm-up, which then
            covers its beginning, as in SimMIM and timm.
    """

    def __init__(
        self, *, warmup: Share, final: NotNegative = 0.0, initial: Share = 0.0, from_start: bool = False
    ) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup={warmup} is a share of training: give a number from 0 to below 1")
        if not 0 <= final <= 1:
            raise ValueError(f"final={final} is a share of the learning rate: give a number from 0 to 1")
        if not 0 <= initial <= 1:
            raise ValueError(f"initial={initial} is a share of the learning rate: give a number from 0 to 1")
        self.warmup, self.final, self.initial = warmup, final, initial
        self.begin = 0.0 if from_start else warmup

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return self.initial + (1 - self.initial) * progress / self.warmup
        done = (progress - self.begin) / (1 - self.begin)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


class Constant(Schedule):
    """Linear warm-up from 0, then the full rate.

    Args:
        warmup: share of training used for the warm-up.
    """

    def __init__(self, *, warmup: Share) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup={warmup} is a share of training: give a number from 0 to below 1")
        self.warmup = warmup

    def __call__(self, progress: float) -> float:
        return progress / self.warmup if progress < self.warmup else 1.0


class Steps(Schedule):
    """Linear warm-up from 0, then the full rate, multiplied by ``factor`` at each milestone.

    Args:
        milestones: shares of training, in ascending order.
        factor: the multiplier at each milestone.
        warmup: share of training used for the warm-up.
    """

    def __init__(self, *, milestones: tuple[float, ...] = (0.6, 0.8), factor: float = 0.1, warmup: Share) -> None:
        if list(milestones) != sorted(set(milestones)) or not all(0 < m < 1 for m in milestones):
            raise ValueError(f"milestones={list(milestones)} must rise and lie between 0 and 1")
        if not 0 <= factor <= 1:
            raise ValueError(f"factor={factor} must be from 0 to 1")
        self.milestones, self.factor = tuple(milestones), factor
        self._start = Constant(warmup=warmup)

    def __call__(self, progress: float) -> float:
        passed = sum(progress >= milestone for milestone in self.milestones)
        return self._start(progress) * self.factor**passed
