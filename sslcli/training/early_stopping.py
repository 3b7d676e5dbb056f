"""Looks at the encoder now and then while it trains: which step was the best, and whether to go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sslcli.distributed import Ranks
from sslcli.encoders.base import Encoder

Look = Callable[[Encoder], dict[str, float]]
_BEST = ("best", "best_step", "since")  # what is remembered of a metric


def best_steps(state: Mapping[str, Any] | None) -> set[int]:
    """The steps that a watch's state, if there is one, calls the best by any metric."""
    if state is None:
        return set()
    found = {state["best_step"], *(best["best_step"] for best in state.get("others", {}).values())}
    return found - {None}


class Watch:
    """What was seen of a run. Its state goes into every checkpoint, so that a resumed run remembers.

    Args:
        look: measures an encoder and changes nothing.
        every: steps between looks.
        share: most of the training time that looks may take; one that would take them beyond it, as long as the
            last one was, is left out. The first and the run's last are always taken. Null for no limit, so that no
            clock decides.
        metric: of those that ``look`` returns, the one whose highest value is the best step's; null for none.
        patience: looks without a better value after which the run ends; null goes on.
    """

    def __init__(
        self, look: Look, *, every: int, share: float | None, metric: str | None = None, patience: int | None = None
    ) -> None:
        self._look, self._every, self._share = look, every, share
        self.metric, self.patience = metric, patience
        self.seconds = 0.0  # that looks have taken
        self.last = 0.0  # that the last of them took
        self.best: float | None = None
        self.best_step: int | None = None
        self.since = 0  # looks since the best
        self.looks = 0
        self._others: dict[str, dict[str, Any]] = {}  # the best by metrics that other sessions watched for
        self._told = False  # that looks are left out

    def is_due(self, step: int) -> bool:
        """Whether it is to look after ``step`` steps."""
        return step % self._every == 0

    def look(
        self, encoder: Encoder, step: int, seconds: float, ranks: Ranks, *, always: bool = False
    ) -> dict[str, float]:
        """What is seen after ``step`` steps and ``seconds`` of training.

        Nothing where looks have had their share, unless it is to look ``always``, as at the last step. The first
        process looks while the others wait; all remember the same.
        """
        seen, taken = ranks.by_first(lambda: self._timed(encoder, seconds, always))
        if seen:
            self.seconds, self.last, self.looks = self.seconds + taken, taken, self.looks + 1
        if self.metric is not None and self.metric in seen:
            self._remember(step, seen[self.metric])
        return seen

    def _timed(self, encoder: Encoder, seconds: float, always: bool) -> tuple[dict[str, float], float]:
        if not always and self._share is not None and self.seconds + self.last > self._share * seconds:
            return {}, 0.0
        started = time.perf_counter()
        return self._look(encoder), time.perf_counter() - started

    def _remember(self, step: int, value: float) -> None:
        if self.best is None or value > self.best:
            self.best, self.best_step, self.since = value, step, 0
        else:
            self.since += 1

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.patience is not None and self.since >= self.patience

    def line(self, step: int, seen: Mapping[str, float]) -> str | None:
        """A look in words; those that are left out are told of once."""
        if not seen:
            told, self._told = self._told, True
            reason = f"it would take looks beyond probe.share={self._share} of the time; others may be, too"
            return None if told else f"step {step}  probe  left out: {reason}"
        found = "  ".join(f"{name} {value:.4f}" for name, value in seen.items())
        return f"step {step}  probe  {found}" + ("  best so far" if self.best_step == step else "")

    def summary(self, step: int) -> list[str]:
        """What a run that ends after ``step`` steps says of its best, a line each."""
        if self.best_step is None:
            return []
        best = f"{self.metric} was highest at step {self.best_step}, {self.best:.4f}, of {self.looks} looks"
        lines = [f"{best}: checkpoints/best names it"]
        if self.exhausted:
            reason = f"{self.since} looks without a higher {self.metric} (probe.patience={self.patience})"
            lines.insert(0, f"stopped early at step {step}: {reason}")
        return lines

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        best = {name: getattr(self, name) for name in ("metric", *_BEST)}
        return {**best, "others": self._others, "seconds": self.seconds, "last": self.last, "looks": self.looks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; values of another metric say nothing of this one, and are kept for a session of its own."""
        self.seconds, self.last, self.looks = state["seconds"], state["last"], state.get("looks", 0)
        bests = dict(state.get("others", {}))  # older checkpoints have none
        if state["metric"] is not None:
            bests[state["metric"]] = {name: state[name] for name in _BEST}
        own = bests.pop(self.metric, None)
        if own is not None:
            self.best, self.best_step, self.since = (own[name] for name in _BEST)
        self._others = bests
