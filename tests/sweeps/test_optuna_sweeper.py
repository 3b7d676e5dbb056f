"""``hydra/sweeper=optuna``: trials are jobs of a sweep, which ends, goes on and prunes as the command says."""

import functools
import json
import os
import signal
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from support.forked import Forked

from sslcli import cli

optuna = pytest.importorskip("optuna")
from sslcli.sweeps.metric import Aim  # noqa: E402
from sslcli.sweeps.space import read_space  # noqa: E402
from sslcli.sweeps.study import find_study, open_study  # noqa: E402

OPTUNA = ("-m", "dataset=synthetic", "hydra/sweeper=optuna")


def started(task, folder, *overrides):
    """``ssl-train -m hydra/sweeper=optuna`` in a process of its own, with ``task`` in the place of training."""
    entry = functools.partial(cli._main, "train", functools.partial(cli._run, task))
    process = Forked(entry, "ssl-train", *OPTUNA, f"run_dir={folder}", *overrides)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


@pytest.mark.slow
def test_a_search_goes_on_after_a_kill_and_when_more_trials_are_asked_for(tmp_path):
    folder = tmp_path / "sweep"
    search = ("objective.temperature=interval(0.1,1)", "hydra.sweeper.direction=maximize")

    def task(config):
        with (tmp_path / "begun").open("a") as file:
            file.write(f"{config.objective.temperature}\n")
        if len((tmp_path / "begun").read_text().splitlines()) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return -((config.objective.temperature - 0.3) ** 2)

    assert started(task, folder, *search, "hydra.sweeper.n_trials=2")[0] == -signal.SIGKILL
    code, output = started(task, folder, *search, "hydra.sweeper.n_trials=3")
    assert code == 0 and "search: 3 of 3 trials (3 complete); the best is trial" in output, output
    begun = (tmp_path / "begun").read_text().splitlines()
    assert begun[1] == begun[2] and len(set(begun)) == 3
    trials = find_study(folder, None, "study").trials
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert len(trials) == len(jobs) == 3
    for trial, job, temperature in zip(trials, jobs, dict.fromkeys(begun)):
        assert job["overrides"][-1] == f"objective.temperature={temperature}"
        assert trial.value == pytest.approx(-((float(temperature) - 0.3) ** 2))
        assert trial.params["objective.temperature"] == pytest.approx(float(temperature), rel=1e-3)
    assert list((folder / "workers").iterdir()) == []


def test_a_failed_trial_fails_the_sweep_and_does_not_end_it(tmp_path):
    search = ("seed=0,2", "hydra.sweeper.n_jobs=2", "hydra.sweeper.direction=minimize")
    code, output = started(lambda config: 1 / config.seed, tmp_path / "sweep", *search)
    trials = find_study(tmp_path / "sweep", None, "study").trials
    ended = {trial.params["seed"]: trial.state.name for trial in trials if "worker" in trial.user_attrs}
    assert ended == {0: "FAIL", 2: "COMPLETE"}
    assert code == 1 and "the best is trial" in output and ", 0.5: seed=2" in output, output


@pytest.mark.slow
def test_a_mistake_is_told_before_anything_is_written(run, tmp_path, monkeypatch):
    space = "objective.temperature=0.1,0.2"
    for overrides, said in (
        (["objective.temperature=-1,0.2"], "objective.temperature=-1 must be"),
        ([space, "encoder=mlp,foo"], "encoder: there is no option 'foo'"),
        ([space, "hydra.sweeper.metric=knn_top2"], "there is no 'knn_top2' on these data. Did you mean 'knn_top1'?"),
        ([space, "hydra.sweeper.pruner=median"], "probe.every=STEPS"),
        ([space, "hydra.sweeper.sampler=gp", "hydra/launcher=parallel"], "Use another sampler"),
    ):
        code, _, err = run(*OPTUNA, *overrides)
        assert code == 2 and said in err and err.count("\n") == 1, err
    code, _, err = run("-m", "optimizer.lr=interval(0,1)")
    assert code == 2 and "hydra/sweeper=optuna searches it" in err and err.count("\n") == 1
    code, _, err = run("hydra/sweeper=optuna", "seed=1")
    assert code == 2 and err.endswith("Add -m.\n")
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = run(*OPTUNA, "seed=1,2")
    assert code == 2 and err.endswith("pip install 'sslcli[optuna]'\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_pruned_and_not_measured(tmp_path):
    """The trials before it are made up: they were all right from their first evaluation on."""
    folder = tmp_path / "sweep"
    folder.mkdir()
    run = ("encoder=mlp", "debug=tiny", "train.steps=6", "probe.every=2", "probe.share=null", "seed=range(50)")
    given = OverridesParser.create().parse_overrides(["dataset=synthetic", *run])
    space = read_space(given, OmegaConf.create({}))
    study = open_study(folder, None, "study", space.to_plain(), Aim("knn_top1", "online_knn_top1", "maximize"))
    for _ in range(5):
        trial = study.ask(space.distributions)
        trial.set_user_attr("worker", "another")
        trial.report(2.0, 1)
        study.tell(trial, 2.0)
    search = (*run, "hydra.sweeper.pruner=median", "hydra.sweeper.n_trials=6", "hydra.sweeper.metric=knn_top1")
    code, output = started(cli._train, folder, *search)
    assert code == 0 and "pruned" in output, output
    last = find_study(folder, None, "study").trials[-1]
    assert last.state.name == "PRUNED" and list(last.intermediate_values) == [1]
    assert json.loads((folder / "0" / "outcome.json").read_text())["outcome"] == "pruned"
    assert not (folder / "0" / "result.json").exists()
    assert (folder / "0" / "checkpoints" / "last").read_text().strip() == "step-00000002.pt"
    assert last.value <= 1 and find_study(folder, None, "study").best_value == 2.0
