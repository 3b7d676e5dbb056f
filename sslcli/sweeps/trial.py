"""A trial as its job sees it: where its study is, and whether it falls so far behind that it is pruned.

The sweeper hands it to the job by an environment variable, which reaches other processes and machines, and the ranks of
a run. It is no part of the run's config, so that the run goes on as any other.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli.config.quoting import for_hydra

if TYPE_CHECKING:
    from optuna.study import Study

VARIABLE = "SSLCLI_TRIAL"
_PRUNED = "pruned"  # the attribute of a trial that was told to end: its job may be killed before it has ended


@dataclass(frozen=True)
class Trial:
    """What the job of a trial must know.

    Args:
        sweep_dir: the folder of the sweep.
        storage: the URL of the study's storage; None for the file in that folder.
        study: the name of the study.
        number: the number of the trial.
        pruner: the name of the pruner.
        metric: what is compared, by its name during training.
    """

    sweep_dir: str
    storage: str | None
    study: str
    number: int
    pruner: str
    metric: str

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Trial | None:
        """Return the trial that this process trains; None if it trains none, or one that is never pruned."""
        text = environment.get(VARIABLE)
        return None if text is None else cls(**json.loads(text))

    def override(self) -> str:
        """Return the override that gives a job of Hydra the environment variable."""
        return "+" + for_hydra(f"hydra.job.env_set.{VARIABLE}", json.dumps(asdict(self)))

    def of_number(self, number: int) -> Trial:
        """Return another trial of the same study."""
        return replace(self, number=number)

    @functools.cached_property
    def _opened(self) -> Study:
        import optuna

        from sslcli.sweeps.study import open_storage

        storage = open_storage(Path(self.sweep_dir), self.storage)
        return optuna.load_study(study_name=self.study, storage=storage, sampler=optuna.samplers.RandomSampler())

    @property
    def _id(self) -> int:
        return self._opened._storage.get_trial_id_from_study_id_trial_number(self._opened._study_id, self.number)

    @property
    def was_pruned(self) -> bool:
        """Whether the trial was told to end, by this start of its job or an earlier one."""
        return bool(self._opened._storage.get_trial(self._id).user_attrs.get(_PRUNED))

    def prunes(self, evaluation: int, evaluations: int, value: float) -> bool:
        """Report an evaluation during training; return whether the trial is to end.

        Args:
            evaluation: its number, from 1.
            evaluations: how many the run will have.
            value: what was measured.
        """
        from sslcli.sweeps.study import make_pruner

        storage = self._opened._storage
        storage.set_trial_intermediate_value(self._id, evaluation, value)
        pruned = make_pruner(self.pruner, evaluations).prune(self._opened, storage.get_trial(self._id))
        if pruned:
            storage.set_trial_user_attr(self._id, _PRUNED, True)
        return pruned


def was_pruned(attributes: Mapping[str, object]) -> bool:
    """Whether a trial with these user attributes was told to end."""
    return bool(attributes.get(_PRUNED))
