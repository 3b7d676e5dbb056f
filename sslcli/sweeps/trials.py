"""The trials of a study: which this worker runs next, and what came of them."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sslcli.run_dir.lock import in_turn
from sslcli.sweeps.search import Search
from sslcli.sweeps.space import Space
from sslcli.sweeps.study import make_sampler
from sslcli.sweeps.trial import was_pruned
from sslcli.sweeps.workers import Workers

_LOCK = "study.lock"  # of the worker that takes trials: no two take the same, nor more than there are to be
_WORKER = "worker"  # the attribute of a trial that counts: which worker runs it
_TRIES = 3  # of the sampler, to find what was not tried before


@dataclass(frozen=True)
class Taken:
    """A trial that this worker is to run."""

    number: int
    overrides: list[str]


class Trials:
    """Takes trials of a study and tells their ends.

    Args:
        study: the study.
        space: what it searches.
        search: how.
        workers: this process among those that share the study.
        sweep_dir: the folder of the sweep.
    """

    def __init__(self, study: Study, space: Space, search: Search, workers: Workers, sweep_dir: Path) -> None:
        self._study, self._space, self._search = study, space, search
        self._workers, self._sweep_dir = workers, sweep_dir
        self._begun: set[int] = set()

    @property
    def all(self) -> list[FrozenTrial]:
        """The trials that count: not what the sampler proposed a second time."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if _WORKER in trial.user_attrs]

    def take(self) -> list[Taken]:
        """Return up to ``n_jobs`` trials to run: those that a killed worker has left, then new ones."""
        with in_turn(self._sweep_dir, _LOCK):
            taken: list[Taken] = []
            for trial in self.all:
                if not self._is_left(trial) or len(taken) == self._search.n_jobs:
                    continue
                self._begun.add(trial.number)
                if was_pruned(trial.user_attrs):
                    self.pruned(trial.number)
                else:
                    taken.append(Taken(trial.number, self._space.overrides(trial.params)))
            while len(taken) < self._search.n_jobs and len(self.all) < self._search.n_trials:
                new = self._ask()
                if new is None:
                    break
                self._begun.add(new.number)
                taken.append(new)
            return taken

    @property
    def all_told(self) -> bool:
        """Whether no trial that this worker has begun is open."""
        return not any(t.number in self._begun and t.state == TrialState.RUNNING for t in self.all)

    def summary(self) -> str:
        """Return in a line how many trials there are, how they ended, and the best."""
        trials = self.all
        ends = Counter(trial.state.name.lower() for trial in trials)
        ended = ", ".join(f"{count} {state}" for state, count in ends.items())
        text = f"search: {len(trials)} of {self._search.n_trials} trials ({ended})"
        if not ends["complete"]:
            return text
        best = self._study.best_trial
        return f"{text}; the best is trial {best.number}, {best.value:.5g}: {' '.join(self._swept(best))}"

    def _swept(self, trial: FrozenTrial) -> list[str]:
        return [self._space.dimensions[key].override(value) for key, value in trial.params.items()]

    def _is_left(self, trial: FrozenTrial) -> bool:
        is_open = trial.state == TrialState.RUNNING and trial.number not in self._begun
        return is_open and self._workers.is_mine(trial.user_attrs[_WORKER])

    def _ask(self) -> Taken | None:
        """Return a trial of overrides that no other has; None if all that can be counted were tried."""
        tried = {tuple(self._space.overrides(trial.params)) for trial in self.all}
        for _ in range(_TRIES):
            found = self._proposed(tried)
            if found is not None:
                return found
        chance = random.Random(f"{self._search.seed} {len(tried)}")
        while (point := self._space.untried(tried, chance)) is not None:
            self._study.enqueue_trial(point)
            found = self._proposed(tried)
            if found is not None:
                return found
        return None

    def _proposed(self, tried: Collection[tuple[str, ...]]) -> Taken | None:
        number = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = make_sampler(self._search, number)
        trial = self._study.ask(self._space.distributions)
        overrides = self._space.overrides(trial.params)
        if tuple(overrides) in tried:
            self._study.tell(trial, state=TrialState.FAIL)  # samplers read no trial that failed
            return None
        trial.set_user_attr(_WORKER, self._workers.me)
        return Taken(trial.number, overrides)

    def completed(self, number: int, value: float) -> None:
        """Tell the value of a trial; one that is not finite is a failure."""
        if math.isfinite(value):
            self._study.tell(number, value)
        else:
            self.failed(number)

    def failed(self, number: int) -> None:
        """Tell that a trial failed."""
        self._study.tell(number, state=TrialState.FAIL)

    def pruned(self, number: int) -> None:
        """Tell that a trial was ended before its end: its last value is never compared with final ones."""
        self._study.tell(number, state=TrialState.PRUNED)
