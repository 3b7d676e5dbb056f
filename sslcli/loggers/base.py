"""What a logger is, and the fence around them: one that fails is told of once and left out, and training goes on."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sslcli.errors import UserError

Warn = Callable[[str], None]


class Logger:
    """Takes the figures of a run to another place; it implements what that place can hold.

    A constructor raises UserError for a library that is missing, before anything is trained. Whatever a method
    raises costs the run this logger and nothing else.
    """

    takes_pictures: bool = False  # whether ``pictures`` and ``embedding`` do anything

    def start(self, settings: Mapping[str, Any], run_dir: Path, step: int) -> None:
        """Called before the first step of a session; what an earlier one logged after ``step`` is to be forgotten.

        Args:
            settings: the run's whole config as nested plain values, to be written down.
            run_dir: whose ``metrics.jsonl`` holds the lines up to ``step``, and no others.
            step: the session's first.
        """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """A line of ``metrics.jsonl``."""

    def pictures(self, step: int, name: str, images: Tensor) -> None:
        """Pictures (B, C, H, W) in [0, 1] with 1 or 3 channels."""

    def embedding(self, step: int, features: Tensor, labels: Tensor | None, thumbnails: Tensor | None) -> None:
        """Features (N, D) of samples, their labels (N,), and pictures (N, C, H, W) of them in [0, 1]."""

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Called once at the end of a session, with the results of a run that is done and {} of one that stopped."""


class Loggers:
    """All loggers of a run, each called in turn and kept from harming it.

    Args:
        loggers: by the names under which the config has them.
        warn: told once of each that fails.
    """

    def __init__(self, loggers: Mapping[str, Logger], warn: Warn) -> None:
        self._loggers = dict(loggers)
        self._warn = warn

    @property
    def take_pictures(self) -> bool:
        """Whether any does."""
        return any(logger.takes_pictures for logger in self._loggers.values())

    def each(self, act: Callable[[Logger], object]) -> None:
        """Call ``act`` with every logger that has not failed."""
        for name, logger in list(self._loggers.items()):
            try:
                act(logger)
            except Exception as error:
                del self._loggers[name]
                reason = " ".join(str(error).split()) or type(error).__name__
                self._warn(f"logger.{name}: {reason[:300]} The run goes on without it; metrics.jsonl has every line.")

    def scalars(self, line: Mapping[str, float]) -> None:
        """A line of ``metrics.jsonl``."""
        self.each(lambda logger: logger.scalars(int(line["step"]), line))

    def pictures(self, step: int, group: str, columns: Callable[[], Mapping[str, Tensor]]) -> None:
        """Pictures (B, C, H, W) by the names of their columns, made only if a logger takes them."""

        def act(logger: Logger) -> None:
            for name, images in columns().items() if logger.takes_pictures else ():
                logger.pictures(step, f"{group}/{name}", images)

        self.each(act)

    def embedding(self, step: int, made: Callable[[], tuple[Tensor, Tensor | None, Tensor | None]]) -> None:
        """Features, labels and thumbnails of samples, made only if a logger takes them."""
        self.each(lambda logger: logger.embedding(step, *made()) if logger.takes_pictures else None)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """End the session, once: nothing is logged after it."""
        self.each(lambda logger: logger.finish(metrics))
        self._loggers.clear()


def require(package: str, extra: str) -> None:
    """Refuse, in one line, to start without a library that an extra brings."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"logger.{extra} needs {package}: pip install 'sslcli[{extra}]'")
