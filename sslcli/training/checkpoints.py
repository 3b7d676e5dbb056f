"""The hook that saves checkpoints: when to save, and the content of the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sslcli.config.sections import CheckpointSection
from sslcli.run_dir import checkpoint
from sslcli.training.early_stopping import BestSteps
from sslcli.training.hooks import Hook
from sslcli.training.trainer import Trainer


class Checkpoints(Hook):
    """Saves every few steps, after the best step so far, after the last step, and when a signal stops the run.

    Args:
        run_dir: the run directory.
        options: when to save and which checkpoints to keep.
        identity: returns the description of the run that is stored in addition to the state.
        best: the best steps so far; their checkpoints are kept.
    """

    def __init__(
        self, run_dir: Path, options: CheckpointSection, identity: Callable[[], Mapping[str, Any]], best: BestSteps
    ) -> None:
        self._run_dir, self._options, self._identity, self._best = run_dir, options, identity, best
        self._saved = 0  # the last step that needs no saving

    def start(self, trainer: Trainer) -> None:
        self._saved = trainer.step

    def write(self, trainer: Trainer) -> None:
        due = trainer.step % self._options.every == 0
        if due or trainer.ends or trainer.signal or self._best.step == trainer.step:
            self.save(trainer)

    def interrupted(self, trainer: Trainer) -> None:
        if trainer.step != self._saved:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint of this step, in the first process.

        Raises:
            UserError: a value in it is not finite; nothing is written.
        """
        trainer.guard.check_weights(trainer.modules, trainer.step)
        trainer.ranks.by_first(lambda: self._write(trainer))
        self._saved = trainer.step

    def _write(self, trainer: Trainer) -> None:
        checkpoint.save(
            self._run_dir,
            trainer.step,
            {**self._identity(), **trainer.state_dict()},
            keep=self._options.keep,
            keep_every=self._options.keep_every,
            best=self._best.step,
            bests=self._best.all_steps,
        )
