"""The best step of a run so far, and early stopping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_KEYS = ("best", "best_step", "since")  # state stored for each metric


class BestSteps:
    """The best value of one metric and its step.

    The best steps are part of a run's state, also those of metrics that earlier sessions of the run used.

    Args:
        metric: the metric whose best value is looked for; null for none.
        patience: number of evaluations without a better value after which the run ends; null never ends it.
        after: steps of grace: only evaluations after them count against the patience.
    """

    def __init__(self, metric: str | None = None, patience: int | None = None, after: int = 0) -> None:
        self.metric, self.patience, self.after = metric, patience, after
        self.higher_is_better = True
        self.value: float | None = None
        self.step: int | None = None
        self.since = 0  # evaluations since the best, without those in the steps of grace
        self._others: dict[str, dict[str, Any]] = {}  # the best by metrics of other sessions

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics measured after ``step`` steps."""
        if self.metric is None or self.metric not in metrics:
            return
        value = metrics[self.metric]
        if self.value is None or (value > self.value if self.higher_is_better else value < self.value):
            self.value, self.step, self.since = value, step, 0
        else:
            self.since += step > self.after

    @property
    def exhausted(self) -> bool:
        """Whether the last ``patience`` evaluations brought no better value."""
        return self.patience is not None and self.since >= self.patience

    @property
    def all_steps(self) -> set[int]:
        """The best step by each metric that this or another session used."""
        return {self.step, *(other["best_step"] for other in self._others.values())} - {None}

    def summary(self, step: int, evaluations: int) -> list[str]:
        """Return the lines to print about the best step at the end of a run of ``step`` steps."""
        if self.step is None:
            return []
        most, more = ("highest", "higher") if self.higher_is_better else ("lowest", "lower")
        best = f"{self.metric} was {most} at step {self.step}, {self.value:.4f}, of {evaluations} evaluations"
        lines = [f"{best}: checkpoints/best names it"]
        if self.exhausted:
            reason = f"{self.since} evaluations without a {more} {self.metric} (probe.patience={self.patience})"
            lines.insert(0, f"stopped early at step {step}: {reason}")
        return lines

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values."""
        own = {"metric": self.metric, "best": self.value, "best_step": self.step, "since": self.since}
        return {**own, "others": self._others}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state; values of other metrics are stored for later sessions that use those metrics."""
        bests = dict(state.get("others", {}))
        if state["metric"] is not None:
            bests[state["metric"]] = {name: state[name] for name in _KEYS}
        own = bests.pop(self.metric, None)
        if own is not None:
            self.value, self.step, self.since = (own[name] for name in _KEYS)
        self._others = bests
