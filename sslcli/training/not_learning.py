"""The hook that warns of a loss that is still at its chance level."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from sslcli.run_dir.console import Console
from sslcli.training.hooks import Hook
from sslcli.training.metric_lines import MetricLines
from sslcli.training.trainer import Trainer

MARGIN = 0.02  # of the chance level
FEWEST = 25  # steps: a shorter run tries whether everything works, and nobody expects it to learn


def at_chance(means: Mapping[str, float]) -> dict[str, float]:
    """Return the losses that are less than 2 % better than chance, each with its chance level.

    Args:
        means: a line of metrics: ``loss`` with ``chance``, and in a joint objective ``NAME`` with ``NAME/chance``.
    """
    split = ((*name.rpartition("/")[::2], level) for name, level in means.items())
    levels = {name or "loss": level for name, last, level in split if last == "chance"}
    return {name: x for name, x in levels.items() if name in means and means[name] > x - MARGIN * abs(x)}


class NotLearning(Hook):
    """Warns once of a loss at its chance level: the mean of the log lines in the second half of the run.

    It is judged from three quarters of the run on, as single lines are noisy and the first steps are slow.

    Args:
        lines: the hook of log lines, which comes before this one.
        console: prints the warning.
    """

    def __init__(self, lines: MetricLines, console: Console) -> None:
        self._lines, self._console = lines, console
        self._seen: list[Mapping[str, float]] = []
        self._warned = False

    def write(self, trainer: Trainer) -> None:
        step, means = self._lines.latest
        if step != trainer.step:
            return
        progress = trainer.progress  # asks the first process, so every process must come here
        if progress >= 0.5 or trainer.ends:
            self._seen.append(means)
        if (progress >= 0.75 or trainer.ends) and step >= FEWEST and not self._warned:
            self._warn(trainer, {name: fmean(line[name] for line in self._seen if name in line) for name in means})

    def _warn(self, trainer: Trainer, means: Mapping[str, float]) -> None:
        for name, level in at_chance(means).items():
            self._warned = True
            self._console.warn(
                f"{name} {means[name]:.4f} by step {trainer.step} is that of chance, {level:.4f}: the encoder has not "
                f"learned from it. Train longer, or lower optimizer.lr, which is {trainer.full_lr:.3g}."
            )
