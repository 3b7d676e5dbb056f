"""``hydra/sweeper=optuna``: a search whose trials are jobs of a sweep. Optuna is asked for trials and told their ends.

Optuna is imported where a search starts, so that the other sweeps do not need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from sslcli.config.arguments import key_of
from sslcli.config.composed import TrainConfig, resolved
from sslcli.config.origin import settled
from sslcli.errors import UserError, suggest
from sslcli.run_dir.outcome import OK, PRUNED, STOPPED, read_outcome
from sslcli.run_dir.output import check_writable, folder_for
from sslcli.run_dir.readings import readings
from sslcli.run_dir.result_json import read_result
from sslcli.sweeps import sweep_json
from sslcli.sweeps.metric import Aim, aim_of, measure_known
from sslcli.sweeps.numbered import Numbered
from sslcli.sweeps.parallel import ParallelLauncher
from sslcli.sweeps.search import GP, HYPERBAND, WHERE, Search
from sslcli.sweeps.trial import Trial
from sslcli.sweeps.workers import Workers

if TYPE_CHECKING:
    from sslcli.sweeps.space import Space
    from sslcli.sweeps.trials import Taken, Trials

_STUDY = "study"  # the name of the study in a sweep's own file; in a database, the folder of the sweep is its name


class OptunaSweeper(Sweeper):
    """Searches the ranges of a command; the keys are those of conf/hydra/sweeper/optuna.yaml."""

    def __init__(self, *, params: Mapping[str, str] | None = None, **given: Any) -> None:
        self._params, self._given = params or {}, given

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._composed = hydra_context, config
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are left of the study, which is made if there is none.

        Raises:
            UserError: the search cannot be done. Nothing is written where that is known before the first trial.
        """
        search = Search.read(self._given)
        search.check_installed()
        from sslcli.sweeps.space import read_space
        from sslcli.sweeps.study import open_study, storage_errors
        from sslcli.sweeps.trials import Trials

        parser = OverridesParser.create(config_loader=self._context.config_loader)
        texts = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        space = read_space(parser.parse_overrides(texts), self._composed)
        sweep_dir = Path(self._composed.hydra.sweep.dir).absolute()
        check_writable(sweep_dir / sweep_json.NAME, "run_dir")
        typed = self._typed(space)
        if search.sampler == GP and isinstance(self._launcher, ParallelLauncher):
            raise UserError(
                f"{WHERE}.sampler={GP} computes gradients in the sweep's process, which hydra/launcher=parallel forks. "
                f"Use another sampler, such as {WHERE}.sampler=tpe."
            )
        _check_pruner(search, typed)
        name = _STUDY if search.storage is None else str(self._composed.hydra.sweep.dir)
        with ExitStack() as held, storage_errors(search.storage or str(sweep_dir)):
            aim = _aim(search, space, typed, sweep_dir, name)
            with folder_for(sweep_dir / sweep_json.NAME, "run_dir"):
                workers = Workers(sweep_dir, held)
                study = open_study(sweep_dir, search.storage, name, space.to_plain(), aim)
            trials = Trials(study, space, search, workers, sweep_dir)
            job = Trial(str(sweep_dir), search.storage, name, 0, search.pruner, aim.online or "")
            self._run(trials, space, job if search.prunes else None, aim.metric, sweep_dir)
            print(trials.summary(), flush=True)
            if trials.all_told:
                workers.leave()

    def _typed(self, space: Space) -> TrainConfig:
        """Return the config of a trial; the configs of all choices and of the ends of all ranges can be composed."""
        loader = self._context.config_loader
        first, *others = space.corners()
        for overrides in others:
            loader.load_sweep_config(self._composed, overrides)
        config = loader.load_sweep_config(self._composed, first)
        hydra = config.hydra
        if hydra.job.name != "ssl-train":
            raise UserError("hydra/sweeper=optuna searches what trains best: it is for ssl-train.")
        with open_dict(config):
            config.pop("hydra")
        given: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
        return settled(resolved(config, TrainConfig), given, hydra.runtime.choices)[0]

    def _run(self, trials: Trials, space: Space, job: Trial | None, metric: str | None, sweep_dir: Path) -> None:
        swept = {key_of(key) for key in space.dimensions}
        begun = 0
        while taken := trials.take():
            jobs = [trial.overrides for trial in taken]
            launcher = Numbered(_Telling(self._launcher, taken, job), sweep_dir, swept)
            returned = launcher.launch(jobs, begun)
            begun += len(taken)
            for trial, done, folder in zip(taken, returned, launcher.folders):
                _tell(trials, trial, done, metric, folder)


class _Telling(Launcher):
    """A launcher that tells each job which trial it is, if that may be pruned."""

    def __init__(self, launcher: Launcher, taken: Sequence[Taken], job: Trial | None) -> None:
        self._launcher, self._job = launcher, job
        self._numbers = {tuple(trial.overrides): trial.number for trial in taken}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Do nothing: the launcher inside is set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = [[*overrides, *self._told(overrides)] for overrides in job_overrides]
        return self._launcher.launch(jobs, initial_job_idx)

    def _told(self, overrides: Sequence[str]) -> list[str]:
        if self._job is None:
            return []
        number = next(n for texts, n in self._numbers.items() if tuple(overrides[: len(texts)]) == texts)
        return [self._job.of_number(number).override()]


def _check_pruner(search: Search, typed: TrainConfig) -> None:
    if search.prunes and typed.probe.every is None:
        raise UserError(
            f"{WHERE}.pruner={search.pruner} compares trials while they train. Let them be measured there: "
            "probe.every=STEPS"
        )
    if search.pruner == HYPERBAND and typed.train.minutes is not None:
        raise UserError(
            f"{WHERE}.pruner={HYPERBAND} must know how often a run is measured. Give train.steps or train.epochs."
        )


def _aim(search: Search, space: Space, typed: TrainConfig, sweep_dir: Path, name: str) -> Aim:
    """Return what is improved: as the study says if there is one already, else as the data say."""
    from sslcli.sweeps.study import aim_of_study, check_study, find_study

    study = find_study(sweep_dir, search.storage, name)
    if study is not None:
        check_study(study, space.to_plain(), search)
        return aim_of_study(study)
    if search.direction is not None and search.metric is None and not search.prunes:
        return Aim(None, None, search.direction)
    return aim_of(search, measure_known(typed))


def _tell(trials: Trials, trial: Taken, done: JobReturn, metric: str | None, folder: Path) -> None:
    """Tell what came of a trial; one that was stopped stays open, for the next start.

    Raises:
        UserError: it has ended well, and the metric was not measured.
    """
    returned = done.return_value  # raises the error of a job that failed, where the launcher has caught it
    outcome = read_outcome(folder)
    ended = None if outcome is None else outcome.outcome
    if ended == PRUNED:
        trials.pruned(trial.number)
    elif ended == OK:
        value = returned if metric is None else _values(folder).get(metric)
        if not isinstance(value, (int, float)):
            trials.failed(trial.number)
            raise UserError(
                f"{WHERE}.metric: {folder} was measured without {metric or 'a headline'}. "
                f"{suggest(metric or '', _values(folder))}"
            )
        trials.completed(trial.number, value)
    elif ended != STOPPED:
        trials.failed(trial.number)


def _values(folder: Path) -> dict[str, float]:
    result = read_result(folder)
    return {} if result is None else {name: found.value for name, found in readings(result["metrics"])}
