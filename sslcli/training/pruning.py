"""The hook that ends a trial of a search that falls behind the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from sslcli.errors import UserError
from sslcli.run_dir.console import Console
from sslcli.training.hooks import Hook
from sslcli.training.online_evaluation import OnlineEvaluation
from sslcli.training.trainer import Trainer


class Judge(Protocol):
    """Compares a trial with the others of its search."""

    @property
    def metric(self) -> str:
        """What is compared, by its name among the online metrics."""
        ...

    @property
    def was_pruned(self) -> bool:
        """Whether the trial was told to end, by this session or an earlier one."""
        ...

    def prunes(self, evaluation: int, evaluations: int, value: float) -> bool:
        """Report an evaluation, by its number of so many, and return whether the trial is to end."""
        ...


class Pruning(Hook):
    """Reports each online evaluation to the search, and ends the run when that says so.

    Args:
        online: measures the encoder while it trains, before this hook is called.
        every: steps between two evaluations.
        judge: decides, in the first process.
        console: prints that the run ends.
    """

    def __init__(self, online: OnlineEvaluation, every: int, judge: Judge, console: Console) -> None:
        self._online, self._every, self._judge, self._console = online, every, judge, console
        self.pruned = False

    @property
    def ends_run(self) -> bool:
        return self.pruned

    def start(self, trainer: Trainer) -> None:
        self.pruned = trainer.ranks.by_first(lambda: self._judge.was_pruned)

    def after_step(self, trainer: Trainer) -> None:
        step, found = self._online.latest
        if step != trainer.step or not found or trainer.reached_end:
            return
        metric = self._judge.metric
        if metric not in found:
            raise UserError(f"hydra.sweeper.metric: {metric} was not measured while training.")
        steps = trainer.length.steps or 0
        number, evaluations = step // self._every, max(1, -(-steps // self._every))
        self.pruned = trainer.ranks.by_first(lambda: self._judge.prunes(number, evaluations, found[metric]))
        if self.pruned:
            self._console.line(f"step {step}  pruned: {metric} {found[metric]:.4f} falls behind that of other trials")


def is_pruned(hooks: Iterable[Hook]) -> bool:
    """Whether a run was ended as a trial that falls behind: it is not measured, which takes longer than it saved."""
    return any(isinstance(hook, Pruning) and hook.pruned for hook in hooks)
