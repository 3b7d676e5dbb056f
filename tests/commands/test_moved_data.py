"""A path is a place: the same files elsewhere are the same run, and other files with the same names are another."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.marks import rest_is_slow
from support.oddities import encoded, smooth

OPTIONS = ("dataset=images", "dataset.size=8", "dataset.holdout=0.5", "dataset.workers=0", "encoder.width=2",
           "train.batch_size=4", "probe=none", "log.report=false", "device=cpu", "schedule=constant")  # fmt: skip


def names():
    """The names of all runs."""
    return [path.name for path in Path("runs").iterdir()]


def pictures(folder, first=0):
    folder.mkdir(parents=True)
    for k in range(36):
        (folder / f"{k:02}.png").write_bytes(encoded(smooth(8, 8, first + k), "PNG"))


@pytest.fixture
def trained(run, tmp_path):
    """A finished run of the pictures in ``here/data``; its name."""
    pictures(tmp_path / "here" / "data")
    code, _, err = run(*OPTIONS, "dataset.path=here/data", "train.steps=2")
    assert code == 0, err
    (name,) = names()
    return name


@pytest.mark.parametrize(
    "how",
    rest_is_slow(["relative", "absolute", "variable", "linked", "copied", "moved", "listed"], "relative", "copied"),
)
def test_the_same_files_elsewhere_are_the_same_run(run, trained, tmp_path, monkeypatch, how):
    here = tmp_path / "here" / "data"
    path = {"absolute": here, "variable": "${oc.env:DATA}"}.get(how, tmp_path / "there" / "pictures")
    monkeypatch.setenv("DATA", str(here))
    if how == "relative":
        path = "./here/../here/data/"
    elif how in ("linked", "copied", "moved"):
        path.parent.mkdir()
        {"linked": os.symlink, "copied": shutil.copytree, "moved": shutil.move}[how](here, path)
    elif how == "listed":
        path = here / "list.txt"
        path.write_text("".join(f"{name}\n" for name in sorted(path.name for path in here.glob("*.png"))))
    code, out, err = run(*OPTIONS, f"dataset.path={path}", "train.steps=2")
    assert code == 0 and f"runs/{trained} is finished (2 steps)" in out, err
    code, out, err = run(*OPTIONS, f"dataset.path={path}", "train.steps=3", f"run_dir=runs/{trained}")
    assert code == 0 and f"resuming runs/{trained} at step 2" in out and "changed since the checkpoint" in out, err
    assert names() == [trained]


def test_other_files_with_the_same_names_are_another_run(run, trained, tmp_path):
    pictures(tmp_path / "there" / "data", first=5)
    code, out, err = run(*OPTIONS, "dataset.path=there/data", "train.steps=2")
    assert code == 0 and "is finished" not in out and len(names()) == 2, err
    code, _, err = run(*OPTIONS, "dataset.path=there/data", "train.steps=3", f"run_dir=runs/{trained}")
    assert code == 2 and "was trained on 18 of 36 pictures" in err and "resume=never" in err
    shutil.rmtree("here/data")
    shutil.copytree("there/data", "here/data")  # the very path, with other pictures
    code, out, _ = run(*OPTIONS, "dataset.path=here/data", "train.steps=2")
    assert code == 0 and trained not in out and len(names()) == 2


def test_a_finished_run_says_so_when_its_data_are_gone(run, trained):
    shutil.rmtree("here")
    code, out, _ = run(*OPTIONS, "dataset.path=here/data", "train.steps=2")
    assert code == 0 and f"runs/{trained} is finished (2 steps)" in out
    code, _, err = run(*OPTIONS, "dataset.path=there/data", "train.steps=2")
    assert code == 2 and "there is no folder there/data" in err and names() == [trained]


def test_a_run_under_another_name_is_found_by_its_settings_and_its_data(run, trained, tmp_path):
    old = Path("runs") / f"{trained[:-8]}01234567"
    (Path("runs") / trained).rename(old)
    shutil.copytree("here/data", "copy")
    code, out, err = run(*OPTIONS, "dataset.path=copy", "train.steps=2")
    assert code == 0 and f"{old} is finished (2 steps)" in out, err
    pictures(tmp_path / "there", first=5)
    code, out, _ = run(*OPTIONS, "dataset.path=there", "train.steps=2")
    assert code == 0 and str(old) not in out and len(names()) == 2


@pytest.mark.parametrize("command", ["eval", "export"])
def test_relative_data_are_found_from_another_folder(run, trained, tmp_path, monkeypatch, command):
    arguments = [f"run={tmp_path / 'runs' / trained}"]
    arguments += ["probe=geometry"] if command == "eval" else ["format=embeddings", "output=e.parquet"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    code, _, err = run(*arguments, command=command)
    assert code == 0, err
    (tmp_path / "here").rename(tmp_path / "gone")
    code, _, err = run(*arguments, command=command)
    assert code == 2 and f"here/data is neither in {elsewhere} nor in {tmp_path}" in err and err.count("\n") <= 2


def test_one_picture_that_changes_is_noticed_when_the_run_goes_on(run, trained):
    Path("here/data/07.png").write_bytes(encoded(np.zeros((8, 8, 3), np.uint8), "PNG"))
    code, _, err = run(*OPTIONS, "dataset.path=here/data", "train.steps=3", f"run_dir=runs/{trained}")
    assert code == 2 and "was trained on" in err
