"""The hook that evaluates the encoder every few steps during training, without changing the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sslcli.encoders.base import Encoder
from sslcli.run_dir import checkpoint
from sslcli.run_dir.console import Console
from sslcli.training.early_stopping import BestSteps
from sslcli.training.hooks import Hook
from sslcli.training.trainer import Trainer

Measure = Callable[[Encoder], dict[str, float]]


class OnlineEvaluation(Hook):
    """Measures the encoder every few steps and after the last step, in the first process; all processes get the result.

    Args:
        measure: returns metrics of an encoder by name and changes nothing; null measures nothing, and only passes on
            the state of earlier sessions.
        every: steps between evaluations.
        share: largest share of the training time that evaluations may take. An evaluation that would exceed it, if it
            took as long as the last one, is left out, except the first and the run's last. Null for no limit, so that
            results do not depend on a clock.
        best: records the best step and ends the run.
        console: prints a line for each evaluation.
        record: writes its metrics, in the first process only.
        direction: returns whether a higher value of a metric of an encoder is better; raises UserError if it is not
            measured.
    """

    name = "online_evaluation"

    def __init__(
        self,
        measure: Measure | None,
        *,
        every: int,
        share: float | None,
        best: BestSteps,
        console: Console,
        record: Callable[[Mapping[str, Any]], None],
        direction: Callable[[str, Encoder], bool] = lambda metric, encoder: True,
    ) -> None:
        self._measure, self._every, self._share, self.best = measure, every, share, best
        self._console, self._record, self._direction = console, record, direction
        self.seconds = 0.0  # time of all evaluations
        self.last = 0.0  # time of the last evaluation
        self.count = 0
        self.latest: tuple[int, Mapping[str, float]] = (-1, {})  # step and metrics of the last evaluation
        self._checked = False  # whether the direction of the best metric is known
        self._reported = False  # whether a line has been printed that evaluations are left out

    @property
    def ends_run(self) -> bool:
        return self.best.exhausted

    def check(self, trainer: Trainer) -> None:
        """Find the direction of the best metric; a mistake in its name is told before anything is written."""
        metric = self.best.metric
        if self._measure is not None and metric is not None and not self._checked:
            self._checked = True
            self.best.higher_is_better = trainer.ranks.by_first(lambda: self._direction(metric, trainer.encoder))

    def start(self, trainer: Trainer) -> None:
        self.check(trainer)

    def after_step(self, trainer: Trainer) -> None:
        if self._measure is None or (trainer.step % self._every and not trainer.reached_end):
            return
        trainer.guard.check()
        with trainer.clock.stopped():
            found, taken = trainer.ranks.by_first(lambda: self._timed(trainer))
            if found:
                self.seconds, self.last, self.count = self.seconds + taken, taken, self.count + 1
            self.best.update(trainer.step, found)
            self.latest = trainer.step, found
            self._show(trainer.step, found)

    def _timed(self, trainer: Trainer) -> tuple[dict[str, float], float]:
        """Return the metrics and the seconds that they took; no metrics if evaluations have used up their time."""
        beyond = self._share is not None and self.seconds + self.last > self._share * trainer.seconds
        if self._measure is None or (beyond and not trainer.reached_end):
            return {}, 0.0
        started = time.perf_counter()
        return self._measure(trainer.encoder), time.perf_counter() - started

    def _show(self, step: int, found: Mapping[str, float]) -> None:
        """Record and print an evaluation; print only once that evaluations are left out."""
        if found:
            self._record({"step": step, **{f"probe/{name}": value for name, value in found.items()}})
            numbers = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
            self._console.line(f"step {step}  probe  {numbers}" + "  best so far" * (self.best.step == step))
        elif not self._reported:
            self._reported = True
            reason = f"it would take evaluations beyond probe.share={self._share} of the time; others may be, too"
            self._console.line(f"step {step}  probe  left out: {reason}")

    def end(self, trainer: Trainer) -> None:
        for text in self.best.summary(trainer.step, self.count) if self._measure is not None else ():
            self._console.line(text)

    def state_dict(self) -> dict[str, Any]:
        return {**self.best.state_dict(), "seconds": self.seconds, "last": self.last, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any], trainer: Trainer) -> None:
        """Restore the state if the best checkpoints are in this run's directory; else it is that of another run."""
        best = BestSteps(self.best.metric)
        best.load_state_dict(state)
        paths = [checkpoint.path_of(trainer.run_dir, step) for step in best.all_steps]
        if trainer.ranks.from_first(all(path.is_file() for path in paths)):
            self.seconds, self.last, self.count = state["seconds"], state["last"], state["count"]
            self.best.load_state_dict(state)
