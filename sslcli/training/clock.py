"""The clock of a run: its training time, over all sessions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Counts seconds while it runs.

    Args:
        seconds: those of earlier sessions.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._before = seconds
        self._started: float | None = None

    @property
    def seconds(self) -> float:
        """The seconds so far."""
        return self._before + (0.0 if self._started is None else time.perf_counter() - self._started)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time spent in this block."""
        self._started = time.perf_counter()
        try:
            yield
        finally:
            self._before, self._started = self.seconds, None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Leave out the time spent in this block."""
        began = time.perf_counter()
        yield
        if self._started is not None:
            self._started += time.perf_counter() - began
