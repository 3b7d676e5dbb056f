"""``ssl-train resume=RUN`` alone goes on with a run by its own config; else RUN is where a new run starts from."""

import json
import shlex
import shutil

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from support.helpers import compose

from sslcli.commands.continued import by_own_config
from sslcli.commands.train import run as train
from sslcli.run_dir import checkpoint

BEGUN = "ssl-train debug=tiny objective=byol encoder.width=4 run_dir=r 'dataset.num_samples=120'"
SHORT = ("objective=byol", "encoder.width=4", "objective.width=8", "objective.hidden_dim=8", "dataset.num_samples=120")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps, whose checkpoint has its command."""
    folder = tmp_path_factory.mktemp("trained") / "r"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", shlex.split(BEGUN))
        options = ("device=cpu", "probe=none", "log.report=false", "train.steps=4", "train.batch_size=8")
        train(compose("debug=tiny", *SHORT, *options), folder)
    return folder


@pytest.fixture
def r(trained, run, tmp_path):
    """The run, in the folder that commands start in."""
    return shutil.copytree(trained, tmp_path / "r")


def rewritten(folder, **sections):
    """The run with other values in its config.yaml."""
    path = folder / "config.yaml"
    path.write_text(
        path.read_text().splitlines()[0] + "\n" + yaml.safe_dump(yaml.safe_load(path.read_text()) | sections)
    )


def test_a_run_goes_on_in_its_directory_by_its_own_config(run, r, tmp_path):
    code, out, err = run("resume=r", "train.steps=6", "log.every=2", "logger=csv")
    assert code == 0, err
    assert out.startswith("resume=r: this run goes on in its directory, by its own config\n")
    assert "resuming r at step 4\n" in out and "train.steps: 4 -> 6" in out
    assert (
        "the learning rate jumps from 0, its old end, to 0.0" in out and "a run that has 6 steps from its start" in out
    )
    assert [path.name for path in tmp_path.iterdir()] == ["r"] and (r / "metrics.csv").is_file()
    assert json.loads((r / "result.json").read_text())["steps"] == 6
    state = checkpoint.load(checkpoint.steps(r)[0])
    assert state["config"].objective.name == "BYOL" and state["config"].train.batch_size == 8
    command = f"{BEGUN} train.steps=6 log.every=2 logger=csv".replace("run_dir=r 'dataset", "run_dir=r dataset")
    assert state["environment"]["command"] == command.replace("'", "")
    code, out, _ = run("resume=r")
    assert code == 0 and "r is finished (6 steps)" in out and "ssl-train resume=r train.steps=12" in out


RECORD = "import os, sys; open(os.environ['RANK'], 'w').write(' '.join(sys.argv[1:]))"


def test_each_of_its_ranks_goes_on_in_its_directory(run, r, monkeypatch, tmp_path):
    (tmp_path / "rank.py").write_text(RECORD)
    monkeypatch.setattr("sys.orig_argv", ["python", "rank.py", "resume=r", "device.num=2"])
    code, out, err = run("resume=r", "device.num=2", "device=cpu")
    assert code == 0 and out.count("goes on in its directory") == 1, err
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["resume=r device.num=2"] * 2


def test_torchrun_goes_on_with_a_run_that_device_num_has_started(run, r, monkeypatch):
    device = yaml.safe_load((r / "config.yaml").read_text())["device"]
    rewritten(r, device={**device, "num": 2, "meet_s": 0.1})
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "23456"}.items():
        monkeypatch.setenv(name, value)
    code, _, err = run("resume=r")
    assert code == 2 and "rank 1 did not come within 0.1 s" in err


@pytest.mark.parametrize(("parent", "num"), [("1", 2), ("", None)])
def test_only_ranks_that_device_num_has_started_keep_it(r, monkeypatch, parent, num):
    rewritten(r, device={**yaml.safe_load((r / "config.yaml").read_text())["device"], "num": 2})
    place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "23456"}
    for name, value in {**place, "SSLCLI_PARENT": parent}.items():
        monkeypatch.setenv(name, value)
    name, _, _ = by_own_config(["resume=r"], [], lambda config: None)
    assert ConfigStore.instance().load(f"{name}.yaml").node.device.num == num


def test_a_refused_change_offers_the_weights_in_a_command_that_runs(run, r, tmp_path):
    code, _, err = run("resume=r", "train.batch_size=16", "optimizer.lr=0.02", "log.report=false")
    assert code == 2 and "optimizer.lr: 0.01 -> 0.02; train.batch_size: 8 -> 16" in err
    offered = shlex.split(err.splitlines()[-1].partition("these settings: ")[2])
    assert offered[0] == "ssl-train" and offered[-1] == "encoder.weights=r" and not any("run_dir" in w for w in offered)
    _, out, _ = run(*offered[1:], "train.steps=1", "probe=none", *SHORT[2:4])
    assert "start     r" in out and "batch 16, learning rate 0.02" in out
    code, _, err = run("debug=tiny", *SHORT, "run_dir=r", "encoder.width=6", "device=cpu")
    assert code == 2 and "encoder.width: 4 -> 6" in err and "encoder.weights" not in err


def test_with_a_config_of_its_own_a_run_starts_from_there(run, r):
    same = ("debug=tiny", *SHORT, "train.batch_size=8", "train.steps=6", "device=cpu", "probe=none", "log.report=false")
    before = {path.name: path.read_bytes() for path in r.iterdir() if path.is_file()}
    code, out, err = run(*same, "run_dir=s", "resume=r")
    assert code == 0 and "resuming s at step 4, from r, which stays as it is\n" in out, err
    assert before == {path.name: path.read_bytes() for path in r.iterdir() if path.is_file()}
    code, _, err = run("resume=r", "run_dir=other")  # the default config, which is another
    assert code == 2 and "was trained with another config" in err


@pytest.mark.parametrize(
    "sections, said",
    [
        (
            {"objective": {"_target_": "evil.Loss"}},
            "objective._target_: 'evil.Loss' is outside sslcli. If you trust it",
        ),
        ({"plugins": ["evil"], "seed": 1}, "was trained with another config (seed: 0 -> 1)"),
        ({"seed": "${oc.env:HOME}"}, "config.yaml: seed: '${oc.env:HOME}' is not a whole number."),
        ({"encoder": {"_target_": "x", "name": "${oc.env:HOME}"}}, "refers to something by ${...}"),
        (
            {"dataset": {"_target_": "x", "path": "https://a.b/c"}},
            "If you trust it, add: 'dataset.path=\"https://a.b/c\"'",
        ),
        (
            {"logger": {"w": {"_target_": "x", "mode": "online"}}},
            "metrics are sent. If you trust it, add: logger.w.mode=",
        ),
        ({"train": {"steps": "many"}}, "resume: r/config.yaml: train.steps: 'many' is not a whole number or null."),
        ({"trian": {}}, "resume: r/config.yaml: Unknown key 'trian'. Did you mean 'train'?"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_foreign_config_does_nothing_without_the_words_of_the_command(run, r, sections, said):
    rewritten(r, **sections)
    code, _, err = run("resume=r")
    assert code == 2 and said in err and err.count("\n") <= 2, err


def test_an_unknown_or_damaged_run_is_told_in_a_line(run, r, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "resume: there is no run in empty: it has no config.yaml." in run("resume=empty")[2]
    assert "resume: there is no run with a checkpoint in nowhere." in run("resume=nowhere")[2]
    (r / "config.yaml").write_text("train: [")
    assert "resume: r/config.yaml cannot be read (" in run("resume=r")[2]
    shutil.rmtree(r / "checkpoints")
    (r / "config.yaml").write_text("seed: 0\n")
    code, _, err = run("resume=r")
    assert code == 2 and err == "ssl-train: error: resume: there is no run with a checkpoint in r.\n"
