"""The loop: steps, log lines, checkpoints, signals. Everything random in step n is a function of (seed, n)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sslcli import signals
from sslcli.config.sections import CheckpointSection, TrainSection
from sslcli.data.loader import Batch, Loader
from sslcli.distributed import Ranks
from sslcli.encoders.base import Encoder
from sslcli.encoders.batchnorm import batch_norms
from sslcli.errors import UserError
from sslcli.features import Features
from sslcli.objectives.base import Objective
from sslcli.objectives.teacher import Teacher
from sslcli.randomness import Randomness, fold
from sslcli.run_dir import checkpoint
from sslcli.run_dir.console import Console
from sslcli.training.device import Compute
from sslcli.training.early_stopping import Watch, best_steps
from sslcli.training.grad_cache import Outputs, backward
from sslcli.training.gradient_conflict import conflict, last_weight
from sslcli.training.meter import JsonLines, Meter
from sslcli.training.nan_guard import NanGuard, all_finite
from sslcli.training.schedule import Schedule
from sslcli.types import Loss, scalar
from sslcli.views.base import Views

_LONG_WAIT = 0.1  # the share of the time at which the user hears of it


@dataclass(frozen=True)
class Length:
    """How long a run is: a number of steps, or minutes of training time."""

    steps: int | None
    minutes: float | None

    def progress(self, step: int, seconds: float) -> float:
        """The share done, in [0, 1]."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60 * self.minutes))


class Trainer:
    """Trains an encoder on an objective from any step to the end of the run.

    Its state is what training evolves: weights, optimizer, scaler, sums of metrics, the step's number.
    """

    def __init__(
        self,
        *,
        encoder: Encoder,
        objective: Objective,
        views: Views,
        loader: Loader,
        optimizer: Optimizer,
        schedule: Schedule,
        compute: Compute,
        length: Length,
        seed: int,
        train: TrainSection,
        checkpoints: CheckpointSection,
        log_every: int,
        run_dir: Path,
        console: Console,
        identity: Mapping[str, Any],
        ranks: Ranks | None = None,
        quality: Callable[[Encoder], dict[str, float]] | None = None,
        record: Callable[[Mapping[str, Any]], None] = lambda line: None,
        watch: Watch | None = None,
    ) -> None:
        self.encoder, self.objective, self.views = encoder, objective, views
        self.loader, self.optimizer, self.schedule = loader, optimizer, schedule
        self.compute, self.length, self.seed = compute, length, seed
        self.train, self.checkpoints, self.log_every = train, checkpoints, log_every
        self.run_dir, self.console, self.identity = run_dir, console, identity
        self.ranks = ranks or Ranks()
        self.quality = quality
        self.record = record  # told of every line of metrics.jsonl, on the first process only
        self.watch = watch
        self._watched: Mapping[str, Any] | None = None  # what earlier sessions saw; one without a watch hands it on
        self.encode = torch.compile(encoder) if train.compile else encoder
        for module in objective.modules():
            if train.compile and isinstance(module, Teacher):
                module.encoder.compile()
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
        self.meter = Meter()
        self.guard = NanGuard(compute.device)
        self.lines = JsonLines(run_dir / "metrics.jsonl")
        self._rates: dict[int, float] = {}  # learning rate of each step since the last log line
        self._conflict: dict[str, Tensor] = {}  # how the terms' gradients compare in the step just done
        self.step = 0
        self._seconds_before = 0.0
        self._started: float | None = None  # when fit began; None outside of it
        self._last_log = (0.0, 0, 0.0)  # time, step, seconds waited
        self._hint_from = 0  # the step of the last log line that may tell of the wait for data; -1: it is told
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]

    @property
    def seconds(self) -> float:
        """Training time so far, over all processes that have worked on this run."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._seconds_before + running

    @property
    def progress(self) -> float:
        """The share of the run that is done, in [0, 1]; by the first process's clock if it is measured in minutes."""
        return self.length.progress(self.step, self.ranks.from_first(self.seconds) if self.length.minutes else 0.0)

    @property
    def done(self) -> bool:
        """Whether the run has reached its length, or what watches it has lost patience."""
        return self.progress >= 1 or (self.watch is not None and self.watch.exhausted)

    def fit(self) -> None:
        """Train to the end; always leaves a checkpoint of the last step.

        Raises:
            Stopped: a signal came; the step was finished and a checkpoint written.
            UserError: something went non-finite; the last good checkpoint stands.
        """
        if self.loader.accumulate * self.ranks.size > 1 and batch_norms(self.encoder, self.objective):
            self.console.warn(
                "BatchNorm sees one micro-batch of one process at a time, so train.accumulate and the number of "
                "processes change the result; encoder.norm=layer and objective.norm=layer do not."
            )
        self.encoder.train()
        self.objective.train()
        self._started = time.perf_counter()
        self._last_log = (self._started, self.step, self.loader.wait)
        self._hint_from = self.step + 1  # not at the first line: it counts the start of the workers
        self.console.start_bar(self.length.steps, self.step, self.loader.batch_size)
        stop = 0
        with signals.deferred():
            try:
                batches = self.loader.batches(self.step)
                done = self.done
                while not done:
                    self.train_step(next(batches))
                    self.console.advance(self.loader.batch_size)
                    better = self._look()
                    done = self.done  # once a step: with train.minutes it reads the clock
                    if self.step % self.log_every == 0 or done:
                        self._log()
                    stop = self.ranks.highest(signals.pending())  # one process was told to: all do, after this step
                    if self.step % self.checkpoints.every == 0 or done or stop or better:
                        self.save()
                    if stop:
                        break
            finally:
                self._seconds_before, self._started = self.seconds, None
                self.console.stop_bar()
        for text in self.watch.summary(self.step) if self.watch is not None else ():
            self.console.line(text)
        signals.raise_held(stop or self.ranks.highest(signals.pending()))  # it may have come during the last save

    def train_step(self, batch: list[Batch]) -> tuple[Loss, Outputs]:
        """One optimizer step on the micro-batches of a global batch, which are on the device."""
        progress = self.progress
        rate = self.schedule(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * rate
        self._rates[self.step] = self.optimizer.param_groups[0]["lr"]
        self.objective.before_step(progress)

        def project(m: int) -> Outputs:
            randomness = Randomness(self.seed, self.step, self.loader.positions(m), self.compute.device)
            # Dropout lives inside libraries: seeded before each forward, alike in both passes over a micro-batch.
            torch.manual_seed(fold(self.seed, "dropout", self.step, m, self.ranks.rank) % 2**63)
            with self.compute.autocast():
                views = self.views(batch[m], randomness)
                return self.objective.project(Features(self.encode, views, randomness, batch[m], self.ranks))

        modules = [self.encoder, self.objective]
        if self.objective.terms and (self.step + 1) % self.log_every == 0:
            self._conflict = conflict(
                project,
                self.objective,
                len(batch),
                modules=modules,
                scaler=self.scaler,
                watch=last_weight(self.encoder),
                ranks=self.ranks,
            )
        loss, outputs = backward(
            project, self.objective.loss, len(batch), modules=modules, scale=self.scaler.scale, ranks=self.ranks
        )
        self._update(loss, outputs)
        self.step += 1
        return loss, outputs

    def _update(self, loss: Loss, outputs: Outputs) -> None:
        """Clip, step, and tell the objective, the meter and the guard."""
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in parameters])
        if self.train.clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.train.clip, norm)
        before = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        skipped = self.scaler.get_scale() < before  # only a fp16 scaler ever lowers it; it has synchronised anyway
        if not skipped:
            self.objective.after_step(outputs)
        values: dict[str, Tensor] = {"loss": loss.total.detach(), **loss.parts}
        if loss.chance is not None:
            values["chance"] = scalar(loss.chance, loss.total)
        self.meter.update(values)
        if not self.scaler.is_enabled():  # with fp16, an infinite gradient is how the scaler finds its scale
            values["gradient norm"] = norm
        self.guard.update(self.step, values)

    def _log(self) -> None:
        """Read the device once: check the guard, write a line of metrics and one of text."""
        self._stop_if_broken()
        self._rates.clear()
        means = {**self.meter.flush(), **{name: float(value) for name, value in self._conflict.items()}}
        self._conflict = {}
        if self.quality is not None:  # the metrics that need no labels; on the first process only
            means |= {f"quality/{name}": value for name, value in self.quality(self.encoder).items()}
        now, (then, step, waited) = time.perf_counter(), self._last_log
        self._last_log = (now, self.step, self.loader.wait)
        rate = (self.step - step) * self.loader.batch_size / max(now - then, 1e-9)
        wait = (self.loader.wait - waited) / max(now - then, 1e-9)
        if wait > _LONG_WAIT and 0 <= self._hint_from <= step:
            self._hint_from = -1
            self.console.warn(f"The model waited {wait:.0%} of the time for data: {self.loader.advice}.")
        epoch = self.step / self.loader.steps_per_epoch
        line = {
            "step": self.step,
            "epoch": round(epoch, 4),
            **means,
            "lr": self.optimizer.param_groups[0]["lr"],
            "samples_per_second": round(rate, 1),
            "data_wait": round(wait, 4),
        }
        if self.ranks.first:
            self._write_line(line)
        total = f"/{self.length.steps}" if self.length.steps else ""
        shown = {name: value for name, value in means.items() if "/" not in name}  # the rest is in metrics.jsonl
        parts = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        self.console.show(f"loss {means['loss']:.4f}, wait {wait:.1%}")
        self.console.line(
            f"step {self.step}{total}  epoch {epoch:.2f}  {parts}  "
            f"lr {self.optimizer.param_groups[0]['lr']:.2e}  {rate:,.0f} samples/s  wait {wait:.1%}"
        )

    def _look(self) -> bool:
        """Look at the encoder if it is time to; whether this step is the best so far. Meanwhile the clock stands."""
        watch = self.watch
        if watch is None or self._started is None or not (watch.is_due(self.step) or self.progress >= 1):
            return False
        self._stop_if_broken()
        began = time.perf_counter()
        seen = watch.look(self.encoder, self.step, self.seconds, self.ranks, always=self.progress >= 1)
        if seen and self.ranks.first:
            self._write_line({"step": self.step, **{f"probe/{name}": value for name, value in seen.items()}})
        text = watch.line(self.step, seen)
        if text is not None:
            self.console.line(text)
        away = time.perf_counter() - began
        self._started += away
        self._last_log = (self._last_log[0] + away, *self._last_log[1:])
        return watch.best_step == self.step

    def _write_line(self, line: Mapping[str, Any]) -> None:
        self.lines.write(line)
        self.record(line)

    def _stop_if_broken(self) -> None:
        first = self.guard.first()
        if first is not None:
            step, name = first
            lr = self._rates.get(step, 0.0)
            kept = checkpoint.steps(self.run_dir)
            state = f"the last good checkpoint is {kept[0]}" if kept else "there is no checkpoint yet"
            raise UserError(
                f"The {name} became non-finite in step {step + 1} (learning rate {lr:.3g}). Nothing broken was "
                f"saved; {state}. Lower optimizer.lr, set train.clip=1, or use train.precision=fp32."
            )

    def save(self) -> None:
        """Write a checkpoint of this step, by the first process, unless anything in it is broken."""
        self._stop_if_broken()
        if not all_finite([self.encoder, self.objective]):
            raise UserError(
                f"The weights became non-finite in step {self.step}. Nothing broken was saved. "
                "Lower optimizer.lr or set train.clip=1."
            )
        self.ranks.by_first(self._write)

    def _write(self) -> None:
        state, options = self.state_dict(), self.checkpoints
        best, bests = None if self.watch is None else self.watch.best_step, best_steps(state["watch"])
        checkpoint.save(
            self.run_dir, self.step, state, keep=options.keep, keep_every=options.keep_every, best=best, bests=bests
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that training evolves, and what identifies the run."""
        return {
            **self.identity,
            "step": self.step,
            "seconds": self.seconds,
            "length": {"steps": self.length.steps, "minutes": self.length.minutes},
            "encoder": self.encoder.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "meter": self.meter.state_dict(),
            "watch": self._watched if self.watch is None else self.watch.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self.encoder.load_state_dict(state["encoder"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:  # it was off where the precision was another
            self.scaler.load_state_dict(state["scaler"])
        self.meter.load_state_dict(state["meter"], self.compute.device)
        self.step = state["step"]
        self._seconds_before = state["seconds"]
        watched = state.get("watch")  # older checkpoints have none
        bests = [checkpoint.path_of(self.run_dir, step) for step in best_steps(watched)]
        if self.ranks.from_first(all(path.is_file() for path in bests)):  # else it is another run's
            self._watched = watched
        if self.watch is not None and self._watched is not None:
            self.watch.load_state_dict(self._watched)
        if self.ranks.first:
            self.lines.cut_back(self.step)
