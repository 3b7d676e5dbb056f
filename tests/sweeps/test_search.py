"""The keys of a search and its study: what is refused, and what must stay the same."""

import pickle
import sys

import pytest

from sslcli.errors import UserError
from sslcli.sweeps.metric import Aim, Known, aim_of
from sslcli.sweeps.search import Search

KEYS = {
    "n_trials": 8,
    "n_jobs": 1,
    "sampler": "tpe",
    "pruner": "none",
    "metric": None,
    "direction": None,
    "storage": None,
    "seed": 0,
}
KNOWN = Known({"knn_top1": True, "rankme": True, "alpha_req": None}, {"knn_top1": "online_knn_top1"}, "knn_top1")


def refused(act, *arguments):
    with pytest.raises(UserError) as error:
        act(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "keys, said",
    [
        ({"n_trials": 0}, "hydra.sweeper.n_trials=0 must be at least 1"),
        ({"n_jobs": "x"}, "hydra.sweeper.n_jobs: 'x' is not a whole number"),
        ({"sampler": "tp"}, "hydra.sweeper.sampler: there is no 'tp'. Did you mean 'tpe'?"),
        ({"pruner": None}, "hydra.sweeper.pruner: None is not a text"),
        ({"direction": "up"}, "hydra.sweeper.direction: 'up' is not one of maximize, minimize or null"),
        ({"storage": "study.db"}, "is no URL of a database"),
    ],
)
def test_keys_are_checked(keys, said):
    assert said in refused(Search.read, {**KEYS, **keys})


@pytest.mark.parametrize("package, sampler", [("optuna", "tpe"), ("cmaes", "cmaes"), ("scipy", "gp")])
def test_a_package_that_is_missing_is_told_at_once(monkeypatch, package, sampler):
    monkeypatch.setitem(sys.modules, package, None)
    said = refused(Search.read({**KEYS, "sampler": sampler}).check_installed)
    assert said == f"hydra/sweeper=optuna needs the package {package}: pip install 'sslcli[optuna]'"


@pytest.mark.parametrize(
    "keys, known, aim",
    [
        ({}, KNOWN, Aim(None, "online_knn_top1", "maximize")),
        ({"metric": "rankme"}, KNOWN, Aim("rankme", None, "maximize")),
        ({"metric": "alpha_req", "direction": "minimize"}, KNOWN, Aim("alpha_req", None, "minimize")),
        ({"metric": "finetune_top1", "direction": "maximize"}, KNOWN, Aim("finetune_top1", None, "maximize")),
        ({}, Known({"held_out_loss": False}, {}, "held_out_loss"), Aim(None, None, "minimize")),
        ({"metric": "knn_top2"}, KNOWN, "there is no 'knn_top2' on these data. Did you mean 'knn_top1'?"),
        ({"metric": "alpha_req"}, KNOWN, "neither a higher nor a lower value of it is better"),
        ({}, Known({}, {}, None), "Give maximize or minimize."),
        ({"metric": "rankme", "pruner": "median"}, KNOWN, "rankme is not measured while training"),
    ],
)
def test_the_direction_is_that_of_the_metric(keys, known, aim):
    search = Search.read({**KEYS, **keys})
    if isinstance(aim, Aim):
        assert aim_of(search, known) == aim
    else:
        assert aim in refused(aim_of, search, known)


optuna = pytest.importorskip("optuna")
from sslcli.sweeps import study as studies  # noqa: E402

SPACE, AIM = {"a": "0 to 1"}, Aim(None, None, "maximize")


def test_a_study_of_another_search_is_refused(tmp_path):
    assert studies.find_study(tmp_path, None, "study") is None and list(tmp_path.iterdir()) == []
    studies.open_study(tmp_path, None, "study", SPACE, AIM)
    study = studies.find_study(tmp_path, None, "study")
    search = Search.read(KEYS)
    studies.check_study(study, SPACE, search)
    assert studies.aim_of_study(study) == AIM and study.direction.name == "MAXIMIZE"
    for space, keys, said in (
        ({"a": "0 to 2", "b": "x"}, {}, "another space, which differs in a, b"),
        (SPACE, {"metric": "rankme"}, "the study in run_dir improves the headline"),
        (SPACE, {"direction": "minimize"}, "the study in run_dir is to maximize"),
        (SPACE, {"pruner": "median"}, "was begun without a pruner"),
    ):
        assert said in refused(studies.check_study, study, space, Search.read({**KEYS, **keys}))
    optuna.create_study(storage=studies.open_storage(tmp_path, None), study_name="mine")
    mine = studies.find_study(tmp_path, None, "mine")
    assert "that this program did not make" in refused(studies.check_study, mine, SPACE, search)


def test_a_storage_that_cannot_be_used_is_told_without_its_password(tmp_path):
    said = refused(studies.open_storage, tmp_path, "foo://me:secret@host/x")
    assert "foo://***@host/x cannot be read or written" in said and "secret" not in said
    assert "unable to open" in refused(studies.find_study, tmp_path, "sqlite:////proc/none/study.db", "x")
    (tmp_path / "study.log").write_bytes(b"no study\nat all\n")
    assert "study.log cannot be read" in refused(studies.find_study, tmp_path, None, "study")


@pytest.mark.parametrize("name", ["tpe", "random", "gp", "cmaes"])
def test_samplers_propose_by_their_seed_and_the_trials_before(name):
    """So that a search that was killed and goes on in another process is the same search."""
    pytest.importorskip("cmaes")

    def proposed(seed):
        search = Search.read({**KEYS, "sampler": name, "seed": seed})
        study = optuna.create_study()
        for number in range(4):
            study.sampler = studies.make_sampler(search, number)
            trial = study.ask({key: optuna.distributions.FloatDistribution(0, 1) for key in "ab"})
            study.tell(trial, trial.params["a"])
        return [trial.params for trial in study.trials]

    assert proposed(3) == proposed(3) != proposed(5)


def test_a_study_that_would_run_code_is_refused(tmp_path, monkeypatch):
    """Optuna keeps the state of CMA-ES as a pickle in the study."""
    pytest.importorskip("cmaes")
    distributions = {key: optuna.distributions.FloatDistribution(0, 1) for key in "ab"}
    study = optuna.create_study(sampler=studies.make_sampler(Search.read({**KEYS, "sampler": "cmaes"}), 0))
    for _ in range(20):
        trial = study.ask(distributions)
        study.tell(trial, sum(trial.params.values()))
    kept = [trial for trial in study.trials if any("optimizer" in key for key in trial.system_attrs)]
    assert len(kept) >= 2  # it was read again, too

    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "written"), "w")

    attributes = {"cma:optimizer:0": pickle.dumps(Bomb()).hex()}
    params = {"a": 0.5, "b": 0.5}
    study.add_trial(
        optuna.trial.create_trial(params=params, distributions=distributions, value=1.0, system_attrs=attributes)
    )
    assert "which may run code" in refused(study.ask, distributions) and not (tmp_path / "written").exists()


def test_hyperband_knows_how_often_a_run_is_measured():
    assert studies.make_pruner("hyperband", 27)._max_resource == 27
