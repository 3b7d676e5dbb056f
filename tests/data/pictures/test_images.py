"""Folders of pictures: the whole way from odd files to columns, and which are told as bad."""

import os
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from support.oddities import encoded, make, smooth

from sslcli.data.base import CorruptSamples
from sslcli.data.pictures.base import Pictures
from sslcli.data.pictures.file_index import index
from sslcli.data.pictures.images import images
from sslcli.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def save(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array))
    (image.convert(mode) if mode else image).save(path, **options)


def plain(colour, height=20, width=20):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, len(colour)))


def only(dataset, i=0):
    return dataset.fetch(torch.tensor([i]))["image"][0]


@dataclass
class Windows:
    """Crops whose windows a test writes down: those of row r, of which the dataset learns by ``windows`` only."""

    sizes: tuple
    rows: list

    def windows(self, row, height, width):
        self.seen = (height, width)
        return self.rows[row]


def test_class_folders_are_labels(tmp_path):
    for folder, count in (("b", 5), ("a", 10)):
        for i in range(count):
            save(tmp_path / folder / f"{i}.png", plain((10 * i, 0, 200 if folder == "b" else 0)))
    dataset = images(path=str(tmp_path), size=4)
    assert len(dataset) == 12 and len(dataset.held_out) == 3  # a seeded 20 %
    for part in (dataset, dataset.held_out):
        pixels = part.fetch(torch.arange(len(part)))["image"]
        assert pixels.shape[1:] == (3, 4, 4) == part.spec["image"].shape and pixels.dtype == torch.uint8
        assert ((pixels[:, 2, 0, 0] == 200).long() == part.labels).all()  # a is 0, b is 1
    again = images(path=str(tmp_path), size=4)
    assert torch.equal(again.held_out.labels, dataset.held_out.labels)


def test_a_flat_folder_has_no_labels_and_holds_out_five_percent(tmp_path):
    for i in range(40):
        save(tmp_path / f"{i:02}.png", plain((i, i, i), 2, 2))
    dataset = images(path=str(tmp_path), size=2)
    assert dataset.labels is None and dataset.held_out.labels is None
    assert len(dataset) == 38 and len(dataset.held_out) == 2
    parts = (dataset, dataset.held_out)
    seen = sorted(int(only(part, i)[0, 0, 0]) for part in parts for i in range(len(part)))
    assert seen == list(range(40))


def test_nested_folders_are_searched_and_the_parent_folders_name_is_the_label(tmp_path):
    """``images`` says: a label is the name of a picture's parent folder."""
    for folder in ("train/cat", "train/dog", "more/2020/cat", "more/dog"):
        save(tmp_path / folder / "x.png", plain((255 if folder.endswith("cat") else 0, 0, 0)))
    dataset = images(path=str(tmp_path), size=4, holdout=0)
    is_cat = torch.tensor([int(only(dataset, i)[0, 0, 0] == 255) for i in range(4)])
    assert torch.equal(dataset.labels, 1 - is_cat)


def test_an_odd_folder_gives_every_good_picture_and_names_every_bad_one(tmp_path, capfd):
    good, bad = make(tmp_path / "odd")
    dataset = Pictures(index(str(tmp_path / "odd")), 8)
    order = [os.fsencode(dataset.encoded.source(i)) for i in range(len(dataset))]
    wanted = sorted([*good, *bad], key=lambda path: os.fsencode(path).split(b"/"))
    assert order == [os.fsencode(path) for path in wanted]
    with pytest.raises(CorruptSamples) as found:
        dataset.fetch(torch.arange(len(dataset)))
    assert {order[row] for row in found.value.rows} == {os.fsencode(path) for path in bad}
    for row, one in found.value.rows.items():
        assert one.where == str(tmp_path / "odd" / os.fsdecode(order[row]))
        assert one.reason and len(one.reason) <= 100 and one.reason.isprintable()
    rest = torch.tensor([row for row in range(len(order)) if row not in found.value.rows])
    assert dataset.fetch(rest)["image"].shape == (len(good), 3, 8, 8)
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_bad_samples_are_told_by_their_row_in_the_request(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.png", plain((i, i, i)))
    (tmp_path / "1.png").write_bytes(b"")
    dataset = images(path=str(tmp_path), size=4, holdout=0)
    (tmp_path / "3.png").unlink()  # vanishes after the start
    with pytest.raises(CorruptSamples) as found:
        dataset.fetch(torch.tensor([3, 0, 1, 2, 3]))
    named = {row: bad.where.removeprefix(f"{tmp_path}/") for row, bad in found.value.rows.items()}
    assert named == {0: "3.png", 2: "1.png", 4: "3.png"}
    assert found.value.rows[0].reason == "no such file"


def test_a_name_that_no_terminal_shows_is_told_on_one_line(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"a\nb \xff.png")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(CorruptSamples) as found:
        only(images(path=str(tmp_path), size=4, holdout=0))
    assert found.value.rows[0].where == f"{tmp_path}/a\\nb \\xff.png"


def test_the_centre_of_a_picture_that_is_not_square_is_cut_out(tmp_path):
    for k, (height, width) in enumerate([(20, 60), (60, 20)]):
        picture = plain((255, 0, 0), height, width).copy()
        picture[(height - 20) // 2 : (height + 20) // 2, (width - 20) // 2 : (width + 20) // 2] = (0, 0, 255)
        save(tmp_path / f"{k}.png", picture)
    pixels = images(path=str(tmp_path), size=20, holdout=0).fetch(torch.arange(2))["image"]
    assert torch.equal(pixels, torch.tensor([0, 0, 255]).view(1, 3, 1, 1).expand(2, 3, 20, 20).byte())


def test_crops_are_cut_from_the_full_pictures(tmp_path):
    pictures = [smooth(50, 70, k) for k in range(2)]
    for k, picture in enumerate(pictures):
        save(tmp_path / f"{k}.png", picture)
    dataset = images(path=str(tmp_path), size=8, crop="worker", holdout=0)
    assert dataset.cuts_crops and not images(path=str(tmp_path), size=8, holdout=0).cuts_crops
    windows = [[(0, 0, 50, 70), (3, 4, 16, 12)], [(10, 20, 31, 32), (34, 58, 16, 12)]]  # of sample 1, then of 0
    crops = Windows(((24, 20), (16, 12)), windows)
    columns = dataset.fetch_crops(torch.tensor([1, 0]), crops)
    assert crops.seen == (50, 70) and set(columns) == {"image/0", "image/1"}
    for row, sample in enumerate((1, 0)):
        for k, (height, width) in enumerate(crops.sizes):
            top, left, h, w = windows[row][k]
            cut = Image.fromarray(pictures[sample][top : top + h, left : left + w])
            resized = np.array(cut.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
            found = columns[f"image/{k}"][row].permute(1, 2, 0).numpy()
            assert found.shape == (height, width, 3) and found.dtype == np.uint8
            assert np.abs(found - resized).max() <= (1 if k == 0 else 0)  # the second needs no resize


def test_a_bad_picture_among_crops_is_told_by_its_row(tmp_path):
    save(tmp_path / "0.png", plain((1, 2, 3)))
    (tmp_path / "1.png").write_bytes(encoded(smooth(9, 9), "PNG")[:60])
    dataset = images(path=str(tmp_path), size=8, crop="worker", holdout=0)
    with pytest.raises(CorruptSamples) as found:
        dataset.fetch_crops(torch.tensor([1, 0]), Windows(((4, 4),), [[(0, 0, 5, 5)]] * 2))
    assert list(found.value.rows) == [0]


def test_a_dataset_travels_to_a_spawned_worker(tmp_path):
    save(tmp_path / "0.png", plain((1, 2, 3)))
    dataset = images(path=str(tmp_path), size=2, holdout=0)
    assert torch.equal(only(pickle.loads(pickle.dumps(dataset))), only(dataset))


def test_an_empty_folder_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.path: .* holds no picture: it is empty"):
        images(path=str(tmp_path))
    with pytest.raises(UserError, match=r"dataset\.path: there is no folder .*nowhere"):
        images(path=str(tmp_path / "nowhere"))


def test_a_size_below_one_pixel_is_refused(tmp_path):
    save(tmp_path / "0.png", plain((1, 2, 3)))
    with pytest.raises(ValueError, match="size=0"):
        images(path=str(tmp_path), size=0)
