"""The training loop: steps, and the hooks around them. All random numbers of step n are functions of (seed, n)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sslcli import signals
from sslcli.config.sections import TrainSection
from sslcli.data.loader import Batch, Loader
from sslcli.encoders.base import Encoder
from sslcli.errors import UserError
from sslcli.features import Features
from sslcli.objectives.base import Objective
from sslcli.objectives.teacher import Teacher
from sslcli.randomness import Randomness, fold, seed_torch
from sslcli.training.clock import Clock
from sslcli.training.frozen import Frozen
from sslcli.training.grad_cache import Outputs, backward
from sslcli.training.hooks import Hook
from sslcli.training.length import Length
from sslcli.training.nan_guard import NanGuard
from sslcli.training.schedule import Schedule
from sslcli.training.strategy import Strategy
from sslcli.training.update import Update
from sslcli.types import Compute, Loss
from sslcli.views.base import Views


class Trainer:
    """Trains an encoder on an objective from any step to the end of the run.

    Its state is everything that training changes: weights, optimizer, scaler, step number, and the states of its hooks.

    Args:
        encoder, objective, views: the components, on the device.
        loader: yields the micro-batches of every step.
        optimizer: the optimizer of all parameters; the rates of its groups are the largest of the schedule.
        schedule: the multiplier of these rates as a function of the run's progress.
        compute: device and precision.
        length: length of the run.
        seed: seed of all random numbers.
        train: the options ``compile`` and ``clip``.
        freeze_steps: for how many steps the encoder is frozen.
        run_dir: the run directory, whose checkpoints an error message names; the trainer writes nothing there.
        strategy: how the processes of the run share the model.
        hooks: called around the steps, in this order.
        warn: called with a line about steps that were left out because they were not finite.
    """

    def __init__(
        self,
        encoder: Encoder,
        objective: Objective,
        views: Views,
        *,
        loader: Loader,
        optimizer: Optimizer,
        schedule: Schedule,
        compute: Compute,
        length: Length,
        seed: int,
        train: TrainSection,
        freeze_steps: int = 0,
        run_dir: Path,
        strategy: Strategy | None = None,
        hooks: list[Hook] | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.encoder, self.objective, self.views = encoder, objective, views
        self.loader, self.optimizer, self.schedule = loader, optimizer, schedule
        self.compute, self.length, self.seed = compute, length, seed
        self.train, self.run_dir, self.hooks = train, run_dir, hooks or []
        self.strategy = strategy or Strategy()
        self.strategy.prepare(self.modules)
        self.ranks = self.strategy.ranks
        self.encode = torch.compile(encoder) if train.compile else encoder
        for module in objective.modules():
            if train.compile and isinstance(module, Teacher):
                module.encoder.compile()
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
        self._update = Update(encoder, objective, optimizer, self.scaler, compute.device, train.clip, self.strategy)
        self.frozen = Frozen(encoder, objective, freeze_steps)
        self.guard = NanGuard(compute.device, run_dir, warn)
        self.step = 0
        self.values: dict[str, Tensor] = {}  # scalars of the last step, on the device: loss, its parts, chance
        self.finite = torch.tensor(True, device=compute.device)  # whether they and the gradient of that step are finite
        self.reached_end = False  # whether the last step was the run's last by its length
        self.ends = False  # whether the run ends after the last step, by its length or by a hook
        self.signal = 0  # the signal that stops this session after the last step; 0 for none
        self.clock = Clock()
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]

    @property
    def modules(self) -> list[nn.Module]:
        """The modules that are trained."""
        return [self.encoder, self.objective]

    @property
    def lr(self) -> float:
        """The learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def full_lr(self) -> float:
        """The learning rate of the first parameter group that the schedule multiplies."""
        return float(self.optimizer.param_groups[0]["full_lr"])

    @property
    def seconds(self) -> float:
        """Training time so far, over all sessions of this run."""
        return self.clock.seconds

    @property
    def progress(self) -> float:
        """The share of the run that is done, in [0, 1]; for a length in minutes, by the first process's clock."""
        return self.length.progress(self.step, self.ranks.from_first(self.seconds) if self.length.minutes else 0.0)

    @property
    def done(self) -> bool:
        """Whether the run has reached its length, or a hook ends it."""
        return self.progress >= 1 or any(hook.ends_run for hook in self.hooks)

    def fit(self) -> None:
        """Train to the end of the run.

        Raises:
            Stopped: a signal came; the step was finished, and the hooks have written their files.
            UserError: the data failed, or no step is finite any more.
        """
        self.encoder.train()
        self.objective.train()
        self.signal = 0
        with self.clock.running(), signals.deferred():
            try:
                for hook in self.hooks:
                    hook.start(self)
                batches = self.loader.batches(self.step)
                self.ends = self.done
                while not self.ends and not self.signal:
                    self.train_step(self._next(batches))
                    self._finish_step()
            finally:
                for hook in self.hooks:
                    hook.end(self)
        signals.raise_held(self.signal or self.ranks.highest(signals.pending()))  # it may have come in the last write

    def _next(self, batches: Iterator[list[Batch]]) -> list[Batch]:
        """Wait for the next batch. If a signal or a failure of the data ends the wait, hooks save the last step."""
        alone = self.ranks.size == 1
        try:
            with signals.waiting(0 if alone else signals.GRACE):
                return next(batches)
        except (signals.Stopped, UserError):
            for hook in self.hooks if alone else ():  # other processes would wait in the middle of their step
                hook.interrupted(self)
            raise

    def _finish_step(self) -> None:
        """Call ``after_step`` of all hooks, decide whether the run continues, and call ``write`` of all hooks."""
        self.reached_end = self.progress >= 1  # once a step: with train.minutes it reads the clock
        for hook in self.hooks:
            hook.after_step(self)
        self.ends = self.reached_end or any(hook.ends_run for hook in self.hooks)
        self.signal = self.ranks.highest(signals.pending())  # if one process got a signal, all stop after this step
        for hook in self.hooks:
            hook.write(self)

    def train_step(self, batch: list[Batch]) -> tuple[Loss, Outputs]:
        """Make one optimizer step on the micro-batches of a global batch, which are on the device."""
        progress = self.progress
        rate = self.schedule(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * rate
        self._update.begin()
        self.objective.before_step(progress)
        for hook in self.hooks:
            hook.before_step(self, batch)
        loss, outputs = self.gradients(batch)
        self.update(loss, outputs)
        self.step += 1
        return loss, outputs

    def projection(self, batch: list[Batch]) -> Callable[[int], Outputs]:
        """Return a function from a micro-batch's number to its per-sample outputs; every call returns equal values."""

        def project(m: int) -> Outputs:
            randomness = Randomness(self.seed, self.step, self.loader.positions(m), self.compute.device)
            # Dropout uses torch's generator: seed it before each forward, so both passes over a micro-batch agree.
            seed_torch(fold(self.seed, "dropout", self.step, m, self.ranks.rank), self.compute.device)
            with self.compute.autocast():
                views = self.views(batch[m], randomness)
                features = Features(self.encode, views, randomness, batch[m], self.ranks, self.encoder.at_once)
                return self.objective.project(features)

        return project

    def gradients(self, batch: list[Batch]) -> tuple[Loss, Outputs]:
        """Accumulate the gradient of the whole batch's loss, scaled by the scaler, into the parameters' ``grad``.

        Returns:
            The loss, and the detached outputs of the whole batch in order.
        """
        with self.frozen.during(self.step):
            return backward(
                self.projection(batch),
                self.objective.loss,
                len(batch),
                modules=self.modules,
                scale=self.scaler.scale,
                strategy=self.strategy,
                recomputed=self.modules if self.train.recompute == "blocks" else (),
            )

    def update(self, loss: Loss, outputs: Outputs) -> None:
        """Update the weights and pass the results to the objective and the guard."""
        outcome = self._update(loss, outputs)
        self.values, self.finite = outcome.values, outcome.finite
        self.guard.update(self.step, {**outcome.values, **outcome.norm}, self.lr)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that training changes."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "length": {"steps": self.length.steps, "minutes": self.length.minutes},
            **self.strategy.full_state(self.encoder, self.objective, self.optimizer),
            "scaler": self.scaler.state_dict(),
            "hooks": {hook.name: hook.state_dict() for hook in self.hooks if hook.name},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a checkpoint's state."""
        self.strategy.load_full(state, self.encoder, self.objective, self.optimizer)
        if self.scaler.is_enabled() and state["scaler"]:  # empty if the precision was another
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.clock = Clock(state["seconds"])
        for hook in self.hooks:
            if hook.name in state["hooks"]:
                hook.load_state_dict(state["hooks"][hook.name], self)
