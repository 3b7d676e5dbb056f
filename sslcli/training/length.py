"""How long a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Length:
    """How long a run is: a number of steps, or minutes of training time."""

    steps: int | None
    minutes: float | None

    def progress(self, step: int, seconds: float) -> float:
        """The share done, in [0, 1]."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60 * self.minutes))
