"""The keys of ``hydra/sweeper=optuna``, checked without Optuna: what a search is, as its yaml says it."""

from __future__ import annotations

import importlib.util
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sslcli.config.ranges import Count, Natural, check_number
from sslcli.config.value_types import fits, type_in_words
from sslcli.errors import UserError, suggest

WHERE = "hydra.sweeper"
NO_PRUNER, HYPERBAND, GP = "none", "hyperband", "gp"
SAMPLERS = ("tpe", "random", GP, "cmaes")
_NEEDED = {"cmaes": ("cmaes",), GP: ("scipy",)}  # by sampler, what is needed besides Optuna
PRUNERS = (NO_PRUNER, "median", HYPERBAND)


@dataclass(frozen=True)
class Search:
    """The keys; conf/hydra/sweeper/optuna.yaml says what each is."""

    n_trials: Count = 20
    n_jobs: Count = 1
    sampler: str = "tpe"
    pruner: str = NO_PRUNER
    metric: str | None = None
    direction: Literal["maximize", "minimize"] | None = None
    storage: str | None = None
    seed: Natural = 0

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Search:
        """Check the keys and return them.

        Raises:
            UserError: one has a value of another type, or one that there is not.
        """
        for name, hint in typing.get_type_hints(cls, include_extras=True).items():
            if not fits(given[name], hint):
                raise UserError(f"{WHERE}.{name}: {given[name]!r} is not {type_in_words(hint)}.")
            check_number(f"{WHERE}.{name}", given[name], hint)
        search = cls(**given)
        for name, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            value = getattr(search, name)
            if value not in known:
                raise UserError(f"{WHERE}.{name}: there is no '{value}'. {suggest(value, known)}")
        if search.storage is not None and "://" not in search.storage:
            raise UserError(f"{WHERE}.storage={search.storage} is no URL of a database, such as sqlite:///study.db.")
        return search

    def check_installed(self) -> None:
        """Raise UserError where a package is missing, which Optuna says only at the first trial that needs it."""
        for package in ("optuna", *_NEEDED.get(self.sampler, ())):
            if importlib.util.find_spec(package) is None:
                raise UserError(f"hydra/sweeper=optuna needs the package {package}: pip install 'sslcli[optuna]'")

    @property
    def prunes(self) -> bool:
        """Whether trials are ended before their end."""
        return self.pruner != NO_PRUNER
