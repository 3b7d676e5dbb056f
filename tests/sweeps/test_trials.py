"""Workers that share a study: every trial is run by one of them, and those of a killed one are taken up again."""

import os
import signal
from contextlib import ExitStack

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from support.forked import Forked

from sslcli.sweeps.metric import Aim
from sslcli.sweeps.search import Search

optuna = pytest.importorskip("optuna")
from sslcli.sweeps.space import read_space  # noqa: E402
from sslcli.sweeps.study import find_study, open_study  # noqa: E402
from sslcli.sweeps.trial import Trial  # noqa: E402
from sslcli.sweeps.trials import Trials  # noqa: E402
from sslcli.sweeps.workers import Workers  # noqa: E402

AIM = Aim(None, None, "maximize")


def worker(folder, url, space, act, held, **keys):
    """The trials of a worker; ``act`` runs a trial and may tell its end."""
    found = read_space(OverridesParser.create().parse_overrides([space]), OmegaConf.create({}))
    search = Search(**{"n_trials": 10, **keys})
    study = open_study(folder, url, "study", found.to_plain(), AIM)
    trials = Trials(study, found, search, Workers(folder, held), folder)
    while taken := trials.take():
        for trial in taken:
            act(trials, trial)
    return trials


@pytest.mark.parametrize("storage, workers", [("file", 4), pytest.param("database", 4, marks=pytest.mark.slow)])
def test_each_trial_is_run_once_and_again_only_after_a_kill(tmp_path, storage, workers):
    url = None if storage == "file" else f"sqlite:///{tmp_path}/study.db"
    begun = tmp_path / "begun"
    begun.mkdir()

    def act(trials, trial):
        with (begun / str(trial.number)).open("a") as file:
            file.write(f"{os.getpid()} {trial.overrides}\n")
        if not (tmp_path / "killed").exists() and trial.number >= 3:
            (tmp_path / "killed").write_text(str(trial.number))
            os.kill(os.getpid(), signal.SIGKILL)
        trials.completed(trial.number, float(trial.overrides[0].removeprefix("x=")))

    def entry():
        with ExitStack() as held:
            worker(tmp_path, url, "x=interval(0.0,1.0)", act, held)

    processes = [Forked(entry, "worker") for _ in range(workers)]
    codes = [process.wait(60) for process in processes]
    assert sorted(codes) == [-signal.SIGKILL, *[0] * (workers - 1)], [process.output() for process in processes]
    assert Forked(entry, "worker").wait(60) == 0  # the kill may have come when the others had ended
    study = find_study(tmp_path, url, "study")
    trials = [trial for trial in study.trials if "worker" in trial.user_attrs]
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 10
    starts = {path.name: path.read_text().splitlines() for path in begun.iterdir()}
    assert set(starts) == {str(trial.number) for trial in trials}
    killed = (tmp_path / "killed").read_text()
    assert {name for name, lines in starts.items() if len(lines) > 1} == {killed}
    first, again = (line.partition(" ") for line in starts[killed])
    assert first[0] != again[0] and first[2] == again[2]  # another process, the same overrides


def test_choices_are_tried_once_each_by_any_sampler(tmp_path):
    seen = []

    def act(trials, trial):
        seen.append(trial.overrides[0])
        if trial.overrides[0] == "x=3":
            trials.failed(trial.number)
        else:
            trials.completed(trial.number, float("nan") if trial.overrides[0] == "x=4" else 1.0)

    with ExitStack() as held:
        trials = worker(tmp_path, None, "x=1,2,3,4", act, held, n_jobs=3)
        assert sorted(seen) == ["x=1", "x=2", "x=3", "x=4"]
        assert trials.all_told and "4 of 10 trials" in trials.summary() and "2 fail" in trials.summary()


def test_a_trial_that_was_pruned_before_a_kill_is_not_run_again(tmp_path):
    def entry():
        with ExitStack() as held:
            worker(tmp_path, None, "x=range(9)", kill_at_prune, held, n_trials=2)

    def kill_at_prune(trials, trial):
        study = find_study(tmp_path, None, "study")
        study._storage.set_trial_user_attr(trial.number, "pruned", True)
        os.kill(os.getpid(), signal.SIGKILL)

    assert Forked(entry, "worker").wait(60) == -signal.SIGKILL
    with ExitStack() as held:
        seen = []
        trials = worker(tmp_path, None, "x=range(9)", lambda _, trial: seen.append(trial), held, n_trials=2)
        assert [trial.number for trial in seen] == [1] and not trials.all_told  # it was stopped, say
        assert [trial.state.name for trial in trials.all] == ["PRUNED", "RUNNING"]


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_the_job_of_a_trial_hears_that_it_falls_behind(tmp_path, pruner):
    """It opens the study in its own process, by what the sweeper has put into its environment."""
    ended = {}

    def act(trials, trial):
        told = Trial(str(tmp_path), None, "study", trial.number, pruner, "online_knn_top1")
        given = OverridesParser.create().parse_override(told.override())
        assert given.key_or_group == "hydra.job.env_set.SSLCLI_TRIAL"
        job = Trial.of_environment({"SSLCLI_TRIAL": given.value()})
        assert job == told and not job.was_pruned
        value = 1 - trial.number / 100  # each is worse than all before it
        pruned = any(job.prunes(evaluation, 9, value) for evaluation in range(1, 10))
        assert job.was_pruned == pruned
        ended[trial.number] = pruned
        trials.pruned(trial.number) if pruned else trials.completed(trial.number, value)

    with ExitStack() as held:
        trials = worker(tmp_path, None, "x=interval(0.0,1.0)", act, held, n_trials=12)
        assert not ended[0] and ended[11]
        assert [t.state.name == "PRUNED" for t in trials.all] == list(ended.values())
        assert "the best is trial 0, 1:" in trials.summary()
