"""The progress bar, as a hook."""

from __future__ import annotations

from sslcli.run_dir.console import Console
from sslcli.training.hooks import Hook
from sslcli.training.trainer import Trainer


class ProgressBar(Hook):
    """Shows steps, time and samples per second on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def start(self, trainer: Trainer) -> None:
        self._console.start_bar(trainer.length.steps, trainer.step, trainer.loader.batch_size)

    def after_step(self, trainer: Trainer) -> None:
        self._console.advance(trainer.loader.batch_size)

    def end(self, trainer: Trainer) -> None:
        self._console.stop_bar()
