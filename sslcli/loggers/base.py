"""The interface of loggers, and a wrapper that removes a logger that fails, with a warning, and lets training go on."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sslcli.errors import UserError

Warn = Callable[[str], None]


class Logger:
    """Sends the metrics of a run to a tool; a subclass implements the methods that the tool supports.

    The constructor raises UserError if a library is missing, before training starts. If a method raises any error, the
    run continues without this logger.
    """

    takes_pictures: bool = False  # whether ``pictures`` and ``embedding`` do anything

    def start(self, settings: Mapping[str, Any], run_dir: Path, step: int) -> None:
        """Start a session, before its first step; discard what an earlier session logged after ``step``.

        Args:
            settings: the run's whole config as nested plain values, to be logged.
            run_dir: the run directory; its ``metrics.jsonl`` has the lines up to ``step`` only.
            step: the number of steps done before this session.
        """

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log a line of ``metrics.jsonl``."""

    def pictures(self, step: int, name: str, images: Tensor) -> None:
        """Log pictures (B, C, H, W) in [0, 1] with 1 or 3 channels."""

    def embedding(self, step: int, features: Tensor, classes: list[str] | None, thumbnails: Tensor | None) -> None:
        """Log features (N, D) of samples, the names of their N classes, and pictures (N, C, H, W) in [0, 1]."""

    def finish(self, metrics: Mapping[str, float]) -> None:
        """End a session, with the results of a finished run, or with {} if the run was stopped."""


class Loggers:
    """All loggers of a run; an error of a logger does not end the run.

    Args:
        loggers: the loggers by their names in the config.
        warn: called with a text once for each logger that fails.
    """

    def __init__(self, loggers: Mapping[str, Logger], warn: Warn) -> None:
        self._loggers = dict(loggers)
        self._warn = warn

    @property
    def take_pictures(self) -> bool:
        """Whether any logger takes pictures."""
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
        """Log a line of ``metrics.jsonl``."""
        self.each(lambda logger: logger.scalars(int(line["step"]), line))

    def pictures(self, step: int, group: str, columns: Callable[[], Mapping[str, Tensor]]) -> None:
        """Log pictures (B, C, H, W) by column name; ``columns`` is called only if a logger takes them."""

        def act(logger: Logger) -> None:
            for name, images in columns().items() if logger.takes_pictures else ():
                logger.pictures(step, f"{group}/{name}", images)

        self.each(act)

    def embedding(self, step: int, made: Callable[[], tuple[Tensor, list[str] | None, Tensor | None]]) -> None:
        """Log features, classes and thumbnails of samples; ``made`` is called only if a logger takes them."""
        self.each(lambda logger: logger.embedding(step, *made()) if logger.takes_pictures else None)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """End the session; nothing is logged after the first call."""
        self.each(lambda logger: logger.finish(metrics))
        self._loggers.clear()


def require(package: str, extra: str) -> None:
    """Raise UserError if ``package`` is not installed; the message names the extra that installs it."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"logger.{extra} needs {package}: pip install 'sslcli[{extra}]'")
