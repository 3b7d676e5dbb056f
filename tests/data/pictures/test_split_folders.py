"""Folders named after the parts of a split, as most published sets are unpacked: train/CLASS and val/CLASS."""

import os
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


ALL = " (dataset.split_folders=false reads all as one)"


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


def test_the_test_part_is_asked_and_what_else_lies_there_is_counted(tmp_path):
    save(tmp_path, [*CLASSES, "test/cat/0", "test/dog/0", "extra/0", "flat0", "flat1"])
    dataset = images(path=str(tmp_path), size=4)
    assert sorted(read(dataset)) == [0, 1, 2] and sorted(read(dataset.held_out)) == [6, 7]
    said = words(dataset)["split"]
    assert said.startswith("train trains, test is held out; not read: val, ") and said.endswith(ALL)
    assert "1 picture in extra" in said and "2 pictures beside them" in said


@pytest.mark.parametrize("test", [["test/0", "test/1"], ["test/x/0", "test/y/1"], ["test/images/0"]])
def test_a_test_part_without_the_classes_is_passed_over_for_one_that_probes_can_use(tmp_path, test):
    save(tmp_path, [*CLASSES, *test])
    dataset = images(path=str(tmp_path), size=4)
    assert sorted(read(dataset.held_out)) == [3, 4, 5]
    assert "val is held out; not read: test (no class that train has)" in words(dataset)["split"]
    shutil.rmtree(tmp_path / "val")
    save(tmp_path, [f"train/{'cat' if i < 5 else 'dog'}/{i}" for i in range(10)])
    dataset = images(path=str(tmp_path), size=4)
    assert len(dataset.held_out) == 2 and dataset.held_out.labels is not None
    assert words(dataset)["split"] == f"train trains; not read: test (no class that train has){ALL}"


def test_the_topmost_folders_are_those_below_the_folders_of_the_split(tmp_path):
    """As Tiny ImageNet: train/CLASS/images/*.JPEG, and val/images/*.JPEG, whose classes are in a text file."""
    numbers = save(
        tmp_path,
        ["train/cat/images/0", "train/cat/images/1", "train/dog/images/2", "test/cat/images/0", "val/images/0"],
    )
    dataset = images(path=str(tmp_path), size=4)
    assert sorted(read(dataset)) == [0, 1, 2] and read(dataset.held_out) == [3]
    for part in (dataset, dataset.held_out):
        assert [part.classes[label] for label in part.labels.tolist()] == [numbers[i].split("/")[1] for i in read(part)]
    top = images(path=str(tmp_path), size=4, label="parent")
    assert top.labels is None


def test_a_picture_directly_in_a_folder_of_the_split_has_no_class(tmp_path):
    save(tmp_path, [*CLASSES, "train/0", "val/1"])
    dataset = images(path=str(tmp_path), size=4)
    assert dataset.classes == ("cat", "dog")
    assert dict(zip(read(dataset), dataset.labels.tolist()))[6] == -1
    assert dict(zip(read(dataset.held_out), dataset.held_out.labels.tolist()))[7] == -1


@pytest.mark.parametrize("links", ["one", "keep"])
@pytest.mark.parametrize("linked", [os.symlink, os.link])
def test_names_of_one_file_are_on_one_side(tmp_path, links, linked):
    save(tmp_path, CLASSES)
    for name in ("val/cat/again.png", "val/dog/again.png"):
        linked(tmp_path / "train/cat/0.png", tmp_path / name)
    dataset = images(path=str(tmp_path), size=4, links=links)
    assert 0 not in read(dataset.held_out) and sorted(set(read(dataset.held_out))) == [3, 4, 5]
    assert read(dataset).count(0) == (3 if links == "keep" else 1)
    part = images(path=str(tmp_path), size=4, links=links, holdout=0.4)
    assert (0 in read(part)) != (0 in read(part.held_out))


def test_folders_of_links_to_pictures_that_lie_beside_them_are_read(tmp_path):
    """Links to nowhere, and to themselves, change nothing."""
    save(tmp_path, [f"all/{i}" for i in range(4)])
    for folder, number in (("train/a", 0), ("train/b", 1), ("val/a", 2), ("val/b", 3)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.png").symlink_to(tmp_path / f"all/{number}.png")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "test").mkdir()
    dataset = images(path=str(tmp_path), size=4)
    assert read(dataset) == [0, 1] and read(dataset.held_out) == [2, 3]


def test_both_parts_are_read_alike(tmp_path):
    """Integers of 16 bits in one part would else be read by another scale than those of 8 bits in the other."""
    save(tmp_path, ["train/a/0", "train/b/0"])
    deep = np.full((4, 4), 1000, np.uint16)
    for name in ("val/a/0.png", "val/b/0.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(deep).save(tmp_path / name)
    dataset = images(path=str(tmp_path), size=4)
    parts = dataset, dataset.held_out
    one, other = (part.fetch(torch.arange(2))["image"].dtype for part in parts)
    assert one == other and dataset.spec == dataset.held_out.spec


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
    with pytest.raises(UserError, match="the folders val and valid, both for validation.*dataset.split_folders=false"):
        images(path=str(tmp_path), size=4)


def test_a_run_of_before_still_reads_all_as_one_and_is_resumed_where_that_is_the_same():
    now = compose("dataset=images", "dataset.path=pictures")
    plain = to_plain(now)
    del plain["dataset"]["split_folders"]
    old = restored(plain, 5)
    assert old.dataset.node["split_folders"] is False and now.dataset.node["split_folders"] is True
    assert settings(old) == settings(now)
    assert differences(old, now) == ([], ["dataset.split_folders: False -> True"])


def test_a_finished_run_is_asked_again_where_other_folders_would_be_read(tmp_path, run):
    """It would else be called finished, with pictures among its training data that the command keeps out."""
    save(tmp_path / "set", [f"{part}/{name}/{i}" for part in ("train", "val") for name in "ab" for i in range(6)])
    command = ["dataset=images", "dataset.path=set", "dataset.size=8", "train.steps=1", "train.batch_size=4"]
    command += ["probe=none", "device.threads=1", "log.report=false", "encoder.width=4", "run_dir=run"]
    assert run(*command, "dataset.split_folders=false")[0] == 0
    code, out, _ = run(*command, "dataset.split_folders=false")
    assert code == 0 and "is finished" in out
    code, _, err = run(*command)
    said = " ".join(err.split())
    assert code == 2 and "dataset.split_folders: False -> True" in said and "resume=never" in said
