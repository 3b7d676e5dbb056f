"""What the config in a checkpoint may not do by itself: fetch, choose where copies go, download, name other code."""

import shlex
import shutil
from pathlib import Path

import pytest
import torch
from support.helpers import compose

import sslcli
from sslcli.components import build_dataset, restore_components
from sslcli.config.choices import DatasetChoice
from sslcli.errors import UserError
from sslcli.run_dir import checkpoint
from sslcli.run_dir.foreign import allowed, data_to_read, is_own

SHARDS = "sslcli.data.pictures.shards.shards"
TABLES = "sslcli.data.pictures.parquet.parquet"
CIFAR = "sslcli.data.published.cifar.cifar10"


def data(target, **keys):
    return DatasetChoice.read({"_target_": target, **keys})


def said(*words):
    return compose("run=x", *words, name="eval").dataset


@pytest.mark.parametrize(
    "own",
    [
        data(SHARDS, path="file:///x/payload-*.pth", cache_dir="/site-packages"),
        data(SHARDS, path="https://a.b/{000..009}.tar", cache_dir=None),
        data(SHARDS, path="s3://bucket/a b'c\"d.tar?x=1&y=$HOME", cache_dir=None),
        data(SHARDS, path="here.tar", cache_dir="~/copies"),
        data(TABLES, path="here.parquet", cache_dir="/x"),
        data("mypkg.Data", places=["https://a.b/c"]),
        data("mypkg.Data", place={"inner": "hf://datasets/x"}),
    ],
)
def test_the_message_has_the_exact_words(own):
    with pytest.raises(UserError, match="only the checkpoint names") as caught:
        allowed(own, DatasetChoice())
    text = str(caught.value)
    assert "\n" not in text
    words = shlex.split(text.partition(" trust it, add: ")[2])
    assert {word.partition("=")[0].removeprefix("dataset.") for word in words} <= own.node.keys()
    if own.node["_target_"] != "mypkg.Data":  # lists and mappings are beyond a message
        assert allowed(own, said(*words)) == own


@pytest.mark.parametrize(
    "own", [data(SHARDS, path="/d/*.tar", cache_dir=None, size=8), data(TABLES, path="d", cache_dir=None)]
)
def test_local_data_need_no_words(own):
    assert allowed(own, DatasetChoice()) == own
    assert is_own(own, allowed(own, DatasetChoice()), DatasetChoice())


def test_words_about_the_own_data():
    own = data(SHARDS, path="https://u:pw@a.b/c.tar?token=x", cache_dir=None, size=8)
    kept = data(SHARDS, path="https://***@a.b/c.tar?token=***", cache_dir=None, size=8)  # as checkpoints have it
    words = said("dataset.path='https://u:pw@a.b/c.tar?token=x'", "dataset.cache_dir=/mine", "dataset.workers=0")
    chosen = allowed(kept, words)
    assert chosen.node == {**own.node, "cache_dir": "/mine"} and chosen.workers == 0
    assert is_own(kept, chosen, words)  # the same data in other copies
    elsewhere = said("dataset.path=/moved")
    assert not is_own(kept, allowed(kept, elsewhere), elsewhere)
    other = said("dataset=shards", "dataset.path=/moved")
    assert allowed(kept, other) == other and not is_own(kept, other, other)
    with pytest.raises(UserError, match=r"Unknown key 'dataset\.pth'.*Did you mean 'path'"):
        allowed(kept, said("dataset.pth=x"))
    with pytest.raises(UserError, match=r"with what \*\*\* stands for: .*token=\*\*\*"):
        allowed(kept, DatasetChoice())


def test_what_was_downloaded_is_read_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = data(CIFAR, path="data", download=True)
    assert allowed(own, DatasetChoice()).node["download"] is False
    assert allowed(own, said("dataset.download=true")).node["download"] is True
    state = {"config": compose("dataset=cifar10", "dataset.path=data")}
    with pytest.raises(UserError, match=r"dataset\.download=true"):
        state["config"].dataset = data_to_read(state, DatasetChoice())[0]
        build_dataset(state["config"])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run, whose checkpoint then names data at a URL, in a folder of its choice."""
    from sslcli.commands.train import run as train

    folder = tmp_path_factory.mktemp("trained") / "run"
    train(compose("debug=tiny", "probe=none", "log.report=false", "train.steps=2"), folder)
    return folder


def foreign(trained, folder, **changes):
    shutil.copytree(trained, folder)
    path = checkpoint.steps(folder)[0]
    state = torch.load(path, weights_only=True)
    for section, node in changes.items():
        state["config"][section] = node
    torch.save(state, path)
    return folder


@pytest.fixture
def hostile(trained, tmp_path):
    (tmp_path / "payload-evil.pth").write_text("import os\n")
    node = {"_target_": SHARDS, "path": f"file://{tmp_path}/payload-*.pth", "cache_dir": str(tmp_path / "victim"),
            "size": 32, "crop": "device", "holdout": None}  # fmt: skip
    return foreign(trained, tmp_path / "hostile", dataset=node)


@pytest.mark.parametrize(
    ("command", "words", "code"),
    [
        ("report", (), 0),  # the page comes without pictures
        ("eval", (), 2),
        ("export", ("format=embeddings", "format.table=numpy"), 2),
        ("export", (), 0),  # needs no data
    ],
)
def test_a_foreign_run_fetches_nothing(run, hostile, tmp_path, command, words, code):
    found, _, err = run(f"run={hostile}", *words, command=command)
    assert found == code, err
    assert not (tmp_path / "victim").exists()
    if code or command == "report":
        (line,) = [line for line in err.splitlines() if "dataset: " in line]
        assert "dataset.path=" in line and "dataset.cache_dir=" in line
    if command == "report":
        assert "Without pictures: dataset: " in (hostile / "report.html").read_text()


def test_with_the_words_it_is_fetched(run, hostile, tmp_path):
    words = (f"dataset.path='file://{tmp_path}/payload-*.pth'", f"dataset.cache_dir={tmp_path}/mine")
    code, _, err = run(f"run={hostile}", *words, command="eval")
    assert code == 2 and "is not a tar" in err
    assert [path.suffix for path in (tmp_path / "mine").iterdir()] == [".tar"]  # whatever its name was


@pytest.mark.parametrize("section", ["encoder", "objective", "views", "dataset"])
def test_code_of_others_needs_the_name_of_its_package(trained, tmp_path, monkeypatch, section):
    (tmp_path / "evilpkg.py").write_text("from pathlib import Path\nPath('owned').touch()\nclass Evil: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = foreign(trained, tmp_path / "hostile", plugins=["evilpkg"], **{section: {"_target_": "evilpkg.Evil"}})
    with pytest.raises(UserError, match=r"plugins=\[evilpkg\]"):
        if section == "dataset":
            restore_components(checkpoint.open_run(str(path))[1], torch.device("cpu"))
        else:
            sslcli.load(path)
    assert not Path("owned").exists()


def test_a_step_of_a_foreign_run_fetches_nothing(run, trained, hostile, tmp_path):
    words = ("replay=3", "device=cpu", "dataset=shards", "dataset.size=32")
    code, _, err = run("replay=3", "device=cpu", f"run_dir={hostile}")
    assert code == 2 and "dataset.path=" in err and "dataset.cache_dir=" in err and "dataset=..." in err
    assert not (tmp_path / "victim").exists()
    said = (f"dataset.path='file://{tmp_path}/payload-*.pth'", f"dataset.cache_dir={tmp_path}/victim")
    code, _, err = run(*words, *said, f"run_dir={hostile}")
    assert code == 2 and "is not a tar" in err, err
    config = Path(shutil.copytree(trained, tmp_path / "again"), "config.yaml").read_text()
    (tmp_path / "again" / "config.yaml").write_text(config.replace("weights: null", "weights: timm:resnet18"))
    code, _, err = run("replay=1", "device=cpu", "run_dir=again")
    assert code == 2 and "add: encoder.weights=timm:resnet18" in err
