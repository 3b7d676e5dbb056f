"""Folders named after the parts of a split, as most published sets are unpacked: train/CLASS and val/CLASS."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.helpers import compose

from sslcli.config.composed import restored, to_plain
from sslcli.config.identity import differences, settings
from sslcli.data.pictures.images import images
from sslcli.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def save(root, names):
    """Write a picture for each name, whose red value is the number of the name."""
    for number, name in enumerate(names):
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), (number, 0, 0), np.uint8)).save(path)
    return dict(enumerate(names))


def read(part):
    """The red values of all pictures of a part, in order."""
    return [] if part is None else part.fetch(torch.arange(len(part)))["image"][:, 0, 0, 0].tolist()


def words(dataset):
    return dict(dataset.notes)


CLASSES = ["train/cat/0", "train/cat/1", "train/dog/0", "val/cat/0", "val/dog/0", "val/dog/1"]


@pytest.mark.parametrize("names", [("train", "val"), ("training", "testing"), ("Train", "dev")])
def test_folders_of_a_split_are_kept_apart_and_share_their_classes(tmp_path, names):
    pictures = [name.replace("train", names[0]).replace("val", names[1]) for name in CLASSES]
    numbers = save(tmp_path, pictures)
    dataset = images(path=str(tmp_path), size=4)
    for part, folder in ((dataset, names[0]), (dataset.held_out, names[1])):
        inside = [number for number, name in numbers.items() if name.startswith(folder)]
        assert sorted(read(part)) == inside
        labels = [part.classes[label] for label in part.labels.tolist()]
        assert labels == [numbers[number].split("/")[1] for number in read(part)]
    assert (
        words(dataset)["split"]
        == f"{names[0]} trains, {names[1]} is held out (dataset.split_folders=false reads all as one)"
    )


def test_the_test_part_is_asked_and_what_else_lies_there_is_named(tmp_path):
    save(tmp_path, [*CLASSES, "test/cat/0", "test/dog/0", "extra/0", "flat0", "flat1"])
    dataset = images(path=str(tmp_path), size=4)
    assert sorted(read(dataset)) == [0, 1, 2] and sorted(read(dataset.held_out)) == [6, 7]
    assert words(dataset)["split"].startswith(
        "train trains, test is held out; not read: val, extra, 2 pictures beside them (dataset."
    )


def test_a_test_part_without_classes_is_passed_over_for_one_that_probes_can_use(tmp_path):
    save(tmp_path, [*CLASSES, "test/0", "test/1"])
    dataset = images(path=str(tmp_path), size=4)
    assert sorted(read(dataset.held_out)) == [3, 4, 5]
    assert "val is held out; not read: test" in words(dataset)["split"]
    shutil.rmtree(tmp_path / "val")
    save(tmp_path, [f"train/cat/{i}" for i in range(10)])
    dataset = images(path=str(tmp_path), size=4)
    assert len(dataset) == 9 and len(dataset.held_out) == 2 and dataset.held_out.labels is not None
    assert words(dataset)["split"].startswith("train trains; not read: test (")


def test_without_labels_the_test_part_is_held_out_as_it_is(tmp_path):
    save(tmp_path, ["train/0", "train/1", "test/0"])
    dataset = images(path=str(tmp_path), size=4)
    assert dataset.labels is None and read(dataset) == [0, 1] and read(dataset.held_out) == [2]


def test_a_holdout_is_a_share_of_train_and_the_test_part_is_not_read(tmp_path):
    save(tmp_path, [f"train/{'ab'[i % 2]}/{i}" for i in range(10)])
    save(tmp_path / "test" / "a", ["0"])
    (tmp_path / "test" / "a" / "0.png").write_bytes(b"not a picture")
    dataset = images(path=str(tmp_path), size=4, holdout=0.2)
    assert len(dataset) == 8 and sorted(read(dataset) + read(dataset.held_out)) == list(range(10))
    assert words(dataset)["split"].startswith("train trains; not read: test (")


@pytest.mark.parametrize(
    "names", [["train/cat/0", "cat/0"], ["test/0", "val/0"], ["train/0", "track/0", "bus/0"], ["0", "1"]]
)
def test_other_layouts_are_read_as_one(tmp_path, names):
    save(tmp_path, names)
    dataset = images(path=str(tmp_path), size=4, holdout=0)
    assert sorted(read(dataset)) == list(range(len(names))) and "split" not in words(dataset)


def test_split_folders_false_reads_all_as_one(tmp_path):
    save(tmp_path, CLASSES)
    dataset = images(path=str(tmp_path), size=4, holdout=0, split_folders=False)
    assert sorted(read(dataset)) == list(range(6)) and dataset.classes == ("cat", "dog")


def test_two_folders_for_one_part_are_an_error(tmp_path):
    save(tmp_path, ["train/0", "val/0", "valid/0"])
    with pytest.raises(UserError, match=r"holds val and valid, all for validation\. dataset\.split_folders=false"):
        images(path=str(tmp_path), size=4)


def test_what_was_left_out_of_the_held_out_part_is_counted(tmp_path):
    save(tmp_path, CLASSES)
    (tmp_path / "val" / "list.csv").write_text("a\n")
    (tmp_path / "train" / "notes.txt").write_text("a\n")
    said = words(images(path=str(tmp_path), size=4))
    assert "csv" in said["left out of val"] and "txt" in said["left out"]


def test_a_run_of_before_still_reads_all_as_one_and_is_resumed_where_that_is_the_same():
    now = compose("dataset=images", "dataset.path=pictures")
    plain = to_plain(now)
    del plain["dataset"]["split_folders"]
    old = restored(plain, 5)
    assert old.dataset.node["split_folders"] is False and now.dataset.node["split_folders"] is True
    assert settings(old) == settings(now)
    assert differences(old, now) == ([], ["dataset.split_folders: False -> True"])
