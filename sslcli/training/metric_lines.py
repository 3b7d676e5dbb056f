"""The hook that writes lines of metrics: averages to ``metrics.jsonl``, and as text to the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sslcli.run_dir.console import Console
from sslcli.run_dir.formatting import in_columns
from sslcli.training.busy_processor import BusyProcessor
from sslcli.training.hooks import Hook
from sslcli.training.meter import Meter
from sslcli.training.trainer import Trainer

_LONG_WAIT = 0.1  # share of the time spent waiting for data above which the user is warned


class MetricLines(Hook):
    """Writes, every few steps and after the last step, the means since the previous line and the other hooks' metrics.

    Args:
        every: steps between lines.
        console: prints a line of text.
        record: writes a line of ``metrics.jsonl``, in the first process only.
    """

    name = "metric_lines"

    def __init__(self, every: int, console: Console, record: Callable[[Mapping[str, Any]], None]) -> None:
        self._every, self._console, self._record = every, console, record
        self._meter = Meter()
        self._before = (0.0, 0, 0.0)  # at the previous line: seconds of training, step, seconds waited
        self.latest: tuple[int, Mapping[str, float]] = (-1, {})  # step and entries of the last line
        self._busy = BusyProcessor(console)
        self._hint_from = 0  # first step from which to warn of waiting for data; -1 once warned

    def start(self, trainer: Trainer) -> None:
        self._before = (trainer.seconds, trainer.step, trainer.loader.wait)
        self._hint_from = trainer.step + 1  # not at the first line, which includes the start of the workers
        self._busy.start()

    def after_step(self, trainer: Trainer) -> None:
        self._meter.update(trainer.values, trainer.finite)

    def write(self, trainer: Trainer) -> None:
        """Write a line of metrics and one of text, and warn of steps that were not finite."""
        if trainer.step % self._every and not trainer.ends:
            return
        trainer.guard.check(is_last=trainer.ends)
        means = self._meter.flush()
        for hook in trainer.hooks:
            means |= hook.metrics(trainer)
        loader = trainer.loader
        now, (then, step, waited) = trainer.seconds, self._before
        self._before = (now, trainer.step, loader.wait)
        rate = (trainer.step - step) * loader.batch_size / max(now - then, 1e-9)
        wait = (loader.wait - waited) / max(now - then, 1e-9)
        self._hint(wait, step, loader.advice)
        if trainer.compute.device.type == "cpu":  # another device works while the process waits for it
            self._busy.judge(now - then - (loader.wait - waited))
        self.latest = trainer.step, means
        epoch = trainer.step / loader.steps_per_epoch
        self._record(
            {
                "step": trainer.step,
                "epoch": round(epoch, 4),
                **means,
                "lr": trainer.lr,
                "samples_per_second": round(rate, 1),
                "data_wait": round(wait, 4),
            }
        )
        total = f"/{trainer.length.steps}" if trainer.length.steps else ""
        # The rest is in metrics.jsonl, and chance, which is the same in all steps, in the start lines.
        shown = {name: value for name, value in means.items() if "/" not in name and name != "chance"}
        terms = (f"{name} {value:.4f}" for name, value in shown.items())
        self._console.show(f"loss {means.get('loss', math.nan):.4f}, wait {wait:.1%}")
        speed = (f"lr {trainer.lr:.2e}", f"{rate:,.0f}/s", f"wait {wait:.0%}")  # samples a second
        for line in in_columns(f"step {trainer.step}{total}", f"epoch {epoch:.1f}", *terms, *speed):
            self._console.line(line)

    def _hint(self, wait: float, since: int, advice: str) -> None:
        """Warn once that the model waits for data, with advice."""
        if wait > _LONG_WAIT and 0 <= self._hint_from <= since:
            self._hint_from = -1
            self._console.warn(f"The model waited {wait:.0%} of the time for data: {advice}.")

    def state_dict(self) -> dict[str, Any]:
        return self._meter.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], trainer: Trainer) -> None:
        self._meter.load_state_dict(state, trainer.compute.device)
