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


def at_chance(means: Mapping[str, float]) -> list[str]:
    """Return the names of the losses that are less than 2 % better than their chance level.

    Args:
        means: a line of metrics: ``loss`` with ``chance``, and in a joint objective ``NAME`` with ``NAME/chance``.
    """
    levels = {name.rpartition("/")[0] or "loss": value for name, value in means.items() if _is_chance(name)}
    return [name for name, level in levels.items() if name in means and means[name] > level - MARGIN * abs(level)]


def _is_chance(name: str) -> bool:
    return name.rpartition("/")[2] == "chance"


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
        rate = trainer.optimizer.param_groups[0]["full_lr"]
        for name in at_chance(means):
            self._warned = True
            level = means["chance" if name == "loss" else f"{name}/chance"]
            self._console.warn(
                f"{name} {means[name]:.4f} by step {trainer.step} is that of chance, {level:.4f}: the encoder has not "
                f"learned from it. Train longer, or lower optimizer.lr, which is {rate:.3g}."
            )
