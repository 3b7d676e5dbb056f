"""Optuna's study of a search: its storage, sampler and pruner, and what must be the same at each of its starts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from sqlalchemy.exc import SQLAlchemyError

from sslcli.config.secrets import hide
from sslcli.errors import UserError, described
from sslcli.sweeps.cmaes import SafeCmaEs
from sslcli.sweeps.metric import Aim
from sslcli.sweeps.search import WHERE, Search

NAME = "study.log"
_GRACE = 30  # seconds after which the lock of a writer that was killed is taken away
_PAUSES = (0.1, 0.3, 1.0)  # seconds between tries to open a database
_SPACE, _AIM = "space", "aim"  # attributes of a study

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)  # Optuna 4 calls options of its samplers so


def _tpe(search: Search, seed: int) -> BaseSampler:
    """Return the sampler; it is as if trials that run were bad ones, so that workers search elsewhere."""
    startup = max(2, min(10, search.n_trials // 4))  # trials by chance
    return TPESampler(seed=seed, constant_liar=True, multivariate=True, n_startup_trials=startup)


def _random(search: Search, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


def _gp(search: Search, seed: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=max(2, min(10, search.n_trials // 4)), deterministic_objective=False)


def _cmaes(search: Search, seed: int) -> BaseSampler:
    return SafeCmaEs(seed=seed, warn_independent_sampling=False)


_SAMPLERS: Mapping[str, Callable[[Search, int], BaseSampler]] = {
    "tpe": _tpe,
    "random": _random,
    "gp": _gp,
    "cmaes": _cmaes,
}
_PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "median": lambda evaluations: MedianPruner(),
    "hyperband": lambda evaluations: HyperbandPruner(min_resource=1, max_resource=evaluations),
}


def make_sampler(search: Search, number: int) -> BaseSampler:
    """Return the sampler of a trial: it proposes by the number and the trials before, in whichever process."""
    return _SAMPLERS[search.sampler](search, (search.seed + number) % 2**32)


def make_pruner(name: str, evaluations: int) -> BasePruner:
    """Return the pruner for runs of this number of evaluations during training."""
    return _PRUNERS[name](evaluations)


def open_storage(sweep_dir: Path, url: str | None) -> BaseStorage:
    """Open the storage of a study: the file in the folder of the sweep, or a database.

    Raises:
        UserError: it cannot be read or written.
    """
    path = sweep_dir / NAME
    with storage_errors(url or str(path), ValueError, KeyError, TypeError, ImportError):
        if url is not None:
            return _database(url)
        lock = JournalFileOpenLock(str(path), grace_period=_GRACE)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _database(url: str) -> BaseStorage:
    """Open a database. Of workers that make its tables at the same time, all but one fail, and find them later."""
    for pause in _PAUSES:
        with suppress(SQLAlchemyError, OptunaError):
            return get_storage(url)
        time.sleep(pause)
    return get_storage(url)


@contextmanager
def storage_errors(name: str, *more: type[Exception]) -> Iterator[None]:
    """Raise UserError for errors of a file system, of a database, and for ``more``, as of damaged content."""
    try:
        yield
    except (OSError, OptunaError, SQLAlchemyError, *more) as error:  # type: ignore[misc]  # ruff wants no tuple()
        text = hide(described(error.__cause__ if isinstance(error.__cause__, Exception) else error))
        raise UserError(f"{WHERE}.storage: {hide(name)} cannot be read or written as a study: {text}") from error


def find_study(sweep_dir: Path, url: str | None, name: str) -> Study | None:
    """Return the study of this name; None if there is none yet. A file is not made.

    Raises:
        UserError: the storage cannot be read.
    """
    if url is None and not (sweep_dir / NAME).exists():
        return None
    storage = open_storage(sweep_dir, url)
    with storage_errors(url or str(sweep_dir / NAME)):
        if name not in [study.study_name for study in storage.get_all_studies()]:
            return None
        return optuna.load_study(study_name=name, storage=storage)


def open_study(sweep_dir: Path, url: str | None, name: str, space: Mapping[str, str], aim: Aim) -> Study:
    """Open a study, which is made if there is none of this name.

    Args:
        sweep_dir: the folder of the sweep.
        url: that of a database; None for a file in the folder.
        name: the name of the study.
        space: what is searched, as ``Space.to_plain`` says it.
        aim: what is improved.
    """
    storage = open_storage(sweep_dir, url)
    study = optuna.create_study(storage=storage, study_name=name, direction=aim.direction, load_if_exists=True)
    if _SPACE not in study.user_attrs:
        study.set_user_attr(_AIM, asdict(aim))
        study.set_user_attr(_SPACE, dict(space))
    return study


def aim_of_study(study: Study) -> Aim:
    """Return what a study improves."""
    return Aim(**study.user_attrs[_AIM])


def check_study(study: Study, space: Mapping[str, str], search: Search) -> None:
    """Raise UserError if a study is one of another space, metric or direction."""
    if _SPACE not in study.user_attrs:
        raise UserError(f"{WHERE}.storage: {study.study_name} has a study that this program did not make.")
    before, aim = study.user_attrs[_SPACE], aim_of_study(study)
    keys = [key for key in dict.fromkeys([*before, *space]) if before.get(key) != space.get(key)]
    other = "Give the same as before, or another run_dir=..."
    if keys:
        raise UserError(f"run_dir: its study searches another space, which differs in {', '.join(keys)}. {other}")
    if search.metric != aim.metric:
        raise UserError(f"{WHERE}.metric: the study in run_dir improves {aim.metric or 'the headline'}. {other}")
    if search.direction not in (None, aim.direction):
        raise UserError(f"{WHERE}.direction={search.direction}: the study in run_dir is to {aim.direction}. {other}")
    if search.prunes and aim.online is None:
        raise UserError(f"{WHERE}.pruner={search.pruner}: the study in run_dir was begun without a pruner. {other}")
