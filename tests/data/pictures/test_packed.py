"""``ssl-pack``: what it writes, against dataset=images, Pillow and webdataset, and what is left if it stops."""

import io
import json
import os
import resource
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image
from support.forked import Forked
from support.oddities import encoded, exif, make, smooth, turned

from sslcli import cli
from sslcli.data.pictures.base import Pictures
from sslcli.data.pictures.file_index import index
from sslcli.data.pictures.images import images
from sslcli.data.pictures.levels import apply_levels, measured_levels
from sslcli.data.pictures.packed import packed
from sslcli.data.pictures.shards import shards
from sslcli.errors import UserError


@pytest.fixture
def pack(monkeypatch, capfd):
    """Run the command; returns (exit code, stdout, the last line of stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ssl-pack", *map(str, arguments)])
        monkeypatch.setattr(cli.signals, "install", lambda **_: None)  # pytest keeps its own Ctrl-C
        with pytest.raises(SystemExit) as stop:
            cli.pack()
        out, err = capfd.readouterr()
        return stop.value.code, out, err.splitlines()[-1] if err else ""

    return call


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The odd folder, its good pictures as dataset=images reads them, and the number of bad ones."""
    folder = tmp_path_factory.mktemp("source") / "odd"
    good, bad = make(folder)
    found = index(str(folder))
    is_good = {os.fsencode(path) for path in good}
    readable = torch.tensor([i for i in range(len(found)) if os.fsencode(found.source(i)) in is_good])
    return folder, found, readable, len(bad)


def everything(dataset):
    return dataset.fetch(torch.arange(len(dataset)))["image"]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_array_holds_the_pixels_and_labels_that_the_folder_gives(odd, tmp_path, pack, workers):
    folder, found, readable, num_bad = odd
    dest = tmp_path / "packed"
    code, out, _ = pack(folder, dest, "--to", "array", "--size", 24, "--workers", workers)
    assert code == 0 and f"{len(readable)} pictures in {dest}" in out and f"{num_bad} could not be read" in out
    ours, wanted = packed(path=str(dest), holdout=0), Pictures(found, 24)
    apply_levels(wanted, measured_levels(wanted).levels)  # one of them has 16 bits
    assert torch.equal(everything(ours), wanted.fetch(readable)["image"])
    assert torch.equal(ours.labels, found.labels[readable])
    assert ours.spec == wanted.spec
    assert ours.dataset.classes == found.classes
    sources = (dest / "sources.txt").read_text().splitlines()
    assert sources == [found.where(i) for i in readable.tolist()]
    bad = [line.split("\t") for line in (dest / "bad_samples.txt").read_text().splitlines()]
    assert len(bad) == num_bad and all(reason for _, reason in bad)
    assert {where for where, _ in bad} | set(sources) == {found.where(i) for i in range(len(found))}
    assert np.array_equal(np.load(dest / "images.npy"), everything(ours).numpy())  # a plain array, as numpy reads it
    assert not dest.with_name("packed.part").exists()


def test_a_list_of_files_in_one_folder_packs_without_labels(tmp_path, pack):
    for k in range(40):
        (tmp_path / f"{k:02}.png").write_bytes(encoded(smooth(8, 8, k), "PNG"))
    (tmp_path / "list.txt").write_text("".join(f"{k:02}.png\n" for k in range(39, -1, -1)))
    assert pack(tmp_path / "list.txt", tmp_path / "packed", "--to", "array", "--size", 8, "--workers", 0)[0] == 0
    dataset = packed(path=str(tmp_path / "packed"))
    assert dataset.labels is None and len(dataset) == 38 and len(dataset.held_out) == 2
    whole = packed(path=str(tmp_path / "packed"), holdout=0)
    assert np.array_equal(everything(whole)[3].permute(1, 2, 0), smooth(8, 8, 36))
    assert not (tmp_path / "packed" / "labels.npy").exists()
    same = images(path=str(tmp_path / "list.txt"), size=8)
    assert torch.equal(everything(dataset.held_out), everything(same.held_out))  # the same split


def test_shards_hold_the_files_as_they_are_and_both_readers_agree(odd, tmp_path, pack):
    folder, found, readable, _ = odd
    dest = tmp_path / "shards"
    assert pack(folder, dest, "--to", "shards", "--shard-size", 0.02)[0] == 0
    tars = sorted(dest.glob("*.tar"))
    assert len(tars) > 3
    ours = shards(path=str(dest), size=24, holdout=0)
    assert torch.equal(everything(ours), Pictures(found, 24).fetch(readable)["image"])
    assert torch.equal(ours.labels, found.labels[readable]) and ours.classes == found.classes
    theirs = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False, empty_check=False))
    assert [sample["__key__"] for sample in theirs] == [f"{k:09}" for k in range(len(readable))]
    for sample, i in zip(theirs, readable.tolist()):
        (extension,) = [name for name in sample if not name.startswith("__") and name != "cls"]
        assert sample[extension] == Path(found.source(i)).read_bytes()
        assert int(sample["cls"]) == found.labels[i]
        kind = Image.open(io.BytesIO(sample[extension])).format
        assert {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower()) == extension
    sizes = [[len(s[n]) for s in webdataset.WebDataset(str(tar), shardshuffle=False, empty_check=False)
              for n in s if n not in ("cls", "__key__", "__url__", "__local_path__")] for tar in tars]  # fmt: skip
    assert all(sum(shard) <= 20_000 or len(shard) == 1 for shard in sizes)
    assert all(sum(shard) + following[0] > 20_000 for shard, following in zip(sizes, sizes[1:]))
    decoded = webdataset.WebDataset(str(tars[0]), shardshuffle=False, empty_check=False).decode("pil")
    assert isinstance(next(iter(decoded))["cls"], int)


def test_shards_of_a_size_hold_whole_pictures_with_that_shorter_side(tmp_path, pack):
    upright = smooth(60, 90)
    files = {
        "0.jpg": encoded(turned(upright, 6), "JPEG", quality=97, exif=exif(6)),
        "1.png": encoded(upright, "PNG"),
        "2.jpg": encoded(smooth(30, 20), "JPEG", quality=70),  # not larger than asked for: as it is
        "3.webp": encoded(np.dstack([upright, np.full((60, 90), 255, np.uint8)]), "WEBP", lossless=True),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert pack(tmp_path, tmp_path / "s", "--to", "shards", "--size", 24, "--workers", 0)[0] == 0
    with tarfile.open(tmp_path / "s" / "shard-000000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert list(members) == ["000000000.jpg", "000000001.png", "000000002.jpg", "000000003.png"]  # no classes
    small = Image.fromarray(upright).resize((36, 24), Image.Resampling.BILINEAR)
    for name in ("000000001.png", "000000003.png"):
        assert np.array_equal(Image.open(io.BytesIO(members[name])), small)
    assert members["000000002.jpg"] == files["2.jpg"]
    jpeg = Image.open(io.BytesIO(members["000000000.jpg"]))
    best = Image.open(io.BytesIO(encoded(np.array(small), "JPEG", quality=95, subsampling=0)))
    assert jpeg.size == (36, 24) and jpeg.quantization == best.quantization and not jpeg.getexif()
    assert np.abs(np.array(jpeg).astype(int) - np.array(small)).mean() < 2  # not turned twice, for example
    assert [layer[1:3] for layer in jpeg.layer] == [(1, 1)] * 3


# --- what is refused, and what is left --------------------------------------------------------------


@pytest.fixture
def some(tmp_path):
    for k in range(3):
        (tmp_path / "source" / f"{k % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / f"{k % 2}" / f"{k}.png").write_bytes(encoded(smooth(9, 9, k), "PNG"))
    return tmp_path / "source"


def refused(pack, *arguments):
    code, _, error = pack(*arguments)
    assert code == 2 and error.startswith("ssl-pack: error: ")
    return error


def test_mistakes_are_told_in_one_line_and_nothing_is_written(some, tmp_path, pack):
    dest, before = tmp_path / "dest", sorted(tmp_path.iterdir())
    assert "needs --size" in refused(pack, some, dest, "--to", "array")
    assert "must be positive" in refused(pack, some, dest, "--to", "array", "--size", 0)
    assert "not negative" in refused(pack, some, dest, "--to", "shards", "--workers", -1)
    assert "SOURCE: there is no folder" in refused(pack, tmp_path / "nowhere", dest, "--to", "shards")
    assert "cannot be written" in refused(pack, some, some / "0" / "0.png" / "x", "--to", "shards")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.png").write_bytes(b"")
    assert "none of the 1 pictures" in refused(pack, tmp_path / "broken", dest, "--to", "array", "--size", 8)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "broken"])


def test_what_is_there_is_not_overwritten(some, tmp_path, pack):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    assert "is there already" in refused(pack, some, tmp_path / "mine", "--to", "shards")
    (tmp_path / "dest.part").mkdir()
    (tmp_path / "dest.part" / "x").touch()
    assert "dest.part is there" in refused(pack, some, tmp_path / "dest", "--to", "shards")
    assert (tmp_path / "dest.part" / "x").exists() and (tmp_path / "mine" / "x").exists()
    (tmp_path / "empty").mkdir()
    assert pack(some, tmp_path / "empty", "--to", "shards", "--workers", 0)[0] == 0


def test_a_disk_that_is_full_is_told_and_nothing_is_left(some, tmp_path, pack):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))  # of any one file
    try:
        error = refused(pack, some, tmp_path / "dest", "--to", "array", "--size", 64, "--workers", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.endswith("dest cannot be written: File too large.") and list(tmp_path.iterdir()) == [some]


def test_a_pack_that_is_stopped_leaves_nothing(tmp_path):
    picture = encoded(smooth(300, 300), "PNG")
    (tmp_path / "source").mkdir()
    for k in range(600):
        (tmp_path / "source" / f"{k}.png").write_bytes(picture)
    command = ("ssl-pack", str(tmp_path / "source"), str(tmp_path / "dest"), "--to", "shards")
    process = Forked(cli.pack, *command, "--size", "100", "--workers", "2")
    while not (tmp_path / "dest.part" / "shard-000000.tar").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


# --- the folder that it wrote, damaged ---------------------------------------------------------------


@pytest.fixture
def whole(some, tmp_path, pack):
    assert pack(some, tmp_path / "packed", "--to", "array", "--size", 8, "--workers", 0)[0] == 0
    return tmp_path / "packed"


def spoil(folder, how):
    images_file, about = folder / "images.npy", json.loads((folder / "pack.json").read_text())
    if how == "cut":
        images_file.write_bytes(images_file.read_bytes()[:-1])
    elif how == "longer":
        images_file.write_bytes(images_file.read_bytes() + b"\0")
    elif how == "other array":
        np.save(images_file, np.zeros((3, 3, 8, 8), np.float32))
    elif how == "no array":
        images_file.unlink()
    elif how == "no labels":
        (folder / "labels.npy").unlink()
    elif how == "other labels":
        np.save(folder / "labels.npy", np.zeros(2, np.int64))
    elif how == "half json":
        (folder / "pack.json").write_text('{"format": ')
    elif how == "other json":
        (folder / "pack.json").write_text('{"format": "WebDataset tars"}')
    elif how == "no json":
        (folder / "pack.json").unlink()
    else:
        (folder / "pack.json").write_text(json.dumps({k: v for k, v in about.items() if k != how}))


@pytest.mark.parametrize(
    "how",
    ["cut", "longer", "other array", "no array", "no labels", "other labels", "half json", "other json", "no json",
     "samples", "size", "classes", "digest"],
)  # fmt: skip
def test_a_damaged_pack_is_named_with_the_way_out(whole, how):
    spoil(whole, how)
    with pytest.raises(UserError, match=r"dataset\.path: .*packed.*(Pack it again|ssl-pack)") as caught:
        packed(path=str(whole))
    assert "\n" not in str(caught.value)


def test_another_pack_has_another_fingerprint_and_the_same_one_does_not(some, whole, tmp_path, pack):
    pack(some, tmp_path / "again", "--to", "array", "--size", 8, "--workers", 2)
    pack(some, tmp_path / "larger", "--to", "array", "--size", 9, "--workers", 0)
    (some / "1" / "1.png").write_bytes(encoded(smooth(9, 9, 7), "PNG"))
    pack(some, tmp_path / "other", "--to", "array", "--size", 8, "--workers", 0)
    prints = [packed(path=str(tmp_path / name)).fingerprint() for name in ("packed", "again", "larger", "other")]
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_a_pack_of_deep_integers_has_their_range(tmp_path, pack):
    (tmp_path / "p").mkdir()
    for k in range(3):
        Image.fromarray(smooth(8, 8, k)[..., 0].astype(np.uint16) << 4).save(tmp_path / "p" / f"{k}.png")
    code, out, _ = pack(tmp_path / "p", tmp_path / "packed", "--to", "array", "--size", 8, "--workers", 0)
    assert code == 0 and "0 is black, 4,095 is white" in out
    dataset = packed(path=str(tmp_path / "packed"), holdout=0)
    assert dataset.spec["image"].levels == (0, 4095)
    found = dataset.fetch(torch.arange(3))["image"][:, 0].int()
    assert (found - torch.from_numpy(np.stack([smooth(8, 8, k)[..., 0] for k in range(3)])).int()).abs().max() <= 1


@pytest.mark.parametrize("text", [
    "", "[]", '{"format": 1}', '{"format": "sslcli packed pictures, version 1"}', "{" * 5000, "\x00" * 9,
    '{"format": "sslcli packed pictures, version 1", "samples": 1e3, "size": 16, "classes": []}',
    '{"format": "sslcli packed pictures, version 1", "samples": -1, "size": 16, "classes": []}',
    '{"format": "sslcli packed pictures, version 1", "samples": 60, "size": 99999999, "classes": []}',
    '{"format": "sslcli packed pictures, version 1", "samples": 60, "size": 16, "classes": {"a": 1}}',
])  # fmt: skip
def test_a_pack_json_of_another_shape_is_a_line(tmp_path, text):
    (tmp_path / "pack.json").write_text(text)
    with pytest.raises(UserError, match="dataset.path: ") as refused:
        packed(path=str(tmp_path))
    assert len(str(refused.value).splitlines()) == 1


def test_folders_of_a_split_become_one_set_and_that_is_said(tmp_path, pack):
    for name in ("train/a", "train/b", "val/a", "valid/a"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "set" / name / "0.png")
    code, out, _ = pack(tmp_path / "set", tmp_path / "packed", "--to", "array", "--size", 4)
    assert code == 0 and "split: train, val, valid are one set in this pack" in out and "4 pictures in" in out
