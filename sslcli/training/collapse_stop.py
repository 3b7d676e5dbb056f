"""The hook that ends a run whose features have collapsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sslcli.run_dir.console import Console
from sslcli.training.hooks import Hook
from sslcli.training.trainer import Trainer

IN_A_ROW = 2  # log lines: an encoder may pass through few directions in its first steps


class CollapseStop(Hook):
    """Ends the run when the label-free metrics showed a collapse at two log lines in a row (``train.stop_on``).

    Args:
        collapsed: returns whether the metrics at the last log line show a collapse; called in the first process.
        every: steps between log lines, with which they are measured.
        console: prints a line when the run ends.
    """

    name = "collapse_stop"

    def __init__(self, collapsed: Callable[[], bool], every: int, console: Console) -> None:
        self._collapsed, self._every, self._console = collapsed, every, console
        self._count = 0

    @property
    def ends_run(self) -> bool:
        return self._count >= IN_A_ROW

    def write(self, trainer: Trainer) -> None:
        """Count this log line, whose metrics a hook before this one has measured."""
        if trainer.step % self._every == 0:
            self._count = self._count + 1 if trainer.ranks.by_first(self._collapsed) else 0

    def end(self, trainer: Trainer) -> None:
        if self.ends_run:
            reason = f"the features collapsed at {IN_A_ROW} log lines in a row (train.stop_on=collapse)"
            self._console.line(f"stopped early at step {trainer.step}: {reason}")

    def state_dict(self) -> dict[str, Any]:
        return {"count": self._count}

    def load_state_dict(self, state: Mapping[str, Any], trainer: Trainer) -> None:
        self._count = state["count"]
