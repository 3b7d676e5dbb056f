"""Shards that webdataset writes, against what webdataset and Pillow read from them; damaged ones; and URLs."""

import gzip
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
import webdataset
from braceexpand import braceexpand
from support.helpers import compose
from support.oddities import encoded, smooth
from support.settled import settle
from support.webserver import serving

from sslcli.commands.train import run
from sslcli.data.base import CorruptSamples
from sslcli.data.loader import Loader
from sslcli.data.pictures.file_patterns import expand
from sslcli.data.pictures.images import images
from sslcli.data.pictures.shards import shards
from sslcli.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "sslcli"


def pixels(k, size=9):
    """The k-th picture (size, size, 3): each is another."""
    return smooth(size, size, k)


def write(path, numbers, label=lambda k: k % 3):
    """A shard by webdataset's own writer: pictures of these numbers, PNG, with a class each unless that is None."""
    with webdataset.TarWriter(str(path)) as sink:
        for k in numbers:
            sample = {"__key__": f"{k:06}", "png": encoded(pixels(k), "PNG"), "json": {"number": k}}
            sink.write(sample if label(k) is None else {**sample, "cls": label(k)})
    return path


def by_hand(path, members):
    """A tar with these (name, content)."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def everything(dataset):
    """All pictures as Pillow lays them out: (N, H, W, 3)."""
    return dataset.fetch(torch.arange(len(dataset)))["image"].permute(0, 2, 3, 1).numpy()


def shown(path, **options):
    """The pictures of a set without a held-out part, with one pixel a pixel."""
    return shards(path=str(path), size=9, holdout=0, **options)


# --- what is read -----------------------------------------------------------------------------------


def test_webdataset_reads_the_same_pictures_and_classes_in_the_same_order(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "train-%06d.tar"), maxcount=7, verbose=0) as sink:
        for k in range(30):
            sink.write({"__key__": f"{k:06}", "png": encoded(pixels(k), "PNG"), "cls": 99 - k, "txt": "a caption"})
    names = sorted(str(path) for path in tmp_path.iterdir())
    assert len(names) == 5
    theirs = webdataset.WebDataset(names, shardshuffle=False, empty_check=False).decode("rgb8").to_tuple("png", "cls")
    pictures, classes = zip(*theirs)
    ours = shown(tmp_path)
    assert np.array_equal(everything(ours), np.stack(pictures))
    assert [int(ours.classes[label]) for label in ours.labels] == list(classes)
    assert np.array_equal(pictures[12], pixels(12))


@pytest.mark.parametrize(
    ("classes", "labels"),
    [
        ([7, 999999, 123456, 999999], [0, 2, 1, 2]),  # names, not counts
        (["dog", "cat", "eel", "cat"], [1, 0, 2, 0]),
        (["dog", None, "cat", "cat"], [1, -1, 0, 0]),
        ([5, None, 0, -1], [1, -1, 0, -1]),
        (["10", "9", "a", "9"], [0, 1, 2, 1]),
        ([12345678901, 3, 4, 3], [2, 0, 1, 0]),
        ([None, -1, None, None], None),
    ],
)
def test_classes_are_names_in_order_and_numbers_are_names_too(tmp_path, classes, labels):
    for k in range(2):  # over two shards
        members = []
        for i in (2 * k, 2 * k + 1):
            members.append((f"{i}.png", encoded(pixels(i), "PNG")))
            members += [] if classes[i] is None else [(f"{i}.cls", f"{classes[i]}\n".encode())]
        by_hand(tmp_path / f"{k}.tar", members)
    found = shown(tmp_path)
    assert found.labels is labels is None or found.labels.tolist() == labels
    named = {str(name) for name in classes if name not in (None, -1)}
    assert set(found.classes) == named and len(found.classes) == len(named)
    assert all(i < 0 or found.classes[i] == str(classes[k]) for k, i in enumerate(labels or ()))


def test_a_sample_is_a_run_of_members_with_one_key_and_its_picture_the_plainest(tmp_path):
    png = [encoded(pixels(k), "PNG") for k in range(9)]
    members = [
        ("a/b.c/1.json", b"{}"), ("a/b.c/1.PNG", png[0]), ("a/b.c/1.CLS", b"4"),
        ("a/2.mask.png", png[8]), ("a/2.png", png[1]), ("a/2.cls", b"5"),
        ("b/2.left.png", png[2]), ("b/2.right.png", png[8]),
        ("3.txt", b"no picture"), ("._4.png", b"rubbish from another system"), ("no extension", b""),
        ("5.cls", b"6"), ("5.png", png[3]),
        ("6.png", png[4]), ("7.png", png[5]), ("6.cls", b"9"),  # not neighbours
        ("x" * 150 + ".png", png[6]),  # longer than a header holds
    ]  # fmt: skip
    path = by_hand(tmp_path / "0.tar", members)
    dataset = shown(path)
    assert np.array_equal(everything(dataset), np.stack([pixels(k) for k in range(7)]))
    assert dataset.labels.tolist() == [0, 1, -1, 2, -1, -1, -1] and dataset.classes == ("4", "5", "6")
    places = [dataset.dataset.encoded.where(k) for k in range(6)]
    assert places == [f"{path}: {name}" for name in
                      ("a/b.c/1.PNG", "a/2.png", "b/2.left.png", "5.png", "6.png", "7.png")]  # fmt: skip
    theirs = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    keys = [sample["__key__"] for sample in theirs if any(name.endswith("png") for name in sample)]
    assert keys == ["a/b.c/1", "a/2", "b/2", "5", "6", "7", "x" * 150]


@pytest.mark.parametrize(
    ("names", "kept", "further"),
    [
        ([f"IMG_2020.01.{i:02}.png" for i in range(9)], range(9), 0),
        ([f"v{k}.0_{i:03}.png" for k in (1, 2) for i in range(4)], range(8), 0),
        (["Dr.Smith.png", "Dr.Jones.png", "Dr.No.png"], range(3), 0),
        (["clip.0.png", "clip.1.png", "other.0.png", "other.1.png"], range(4), 0),
        (["1.left.png", "1.right.png", "2.left.png", "2.right.png"], (0, 2), 2),
        (["1.mask.png", "1.png", "2.mask.png", "2.png"], (1, 3), 2),
        (["1.jpg", "1.png", "2.jpg"], (0, 2), 1),
    ],
)
def test_names_with_dots_are_names_and_words_that_come_again_are_parts(tmp_path, names, kept, further):
    members = [(name, encoded(pixels(k), "PNG")) for k, name in enumerate(names)]
    dataset = shown(by_hand(tmp_path / "0.tar", members))
    assert np.array_equal(everything(dataset), np.stack([pixels(k) for k in kept]))
    said = dict(dataset.notes)["members"]
    assert said.startswith(f"{len(names)} members of 1 shard became {len(kept)} samples")
    assert (f"; {further} further pictures" in said) == bool(further)


def test_classes_of_names_with_dots_are_their_own(tmp_path):
    members = []
    for k in range(4):
        members += [(f"IMG_2020.0{k}.png", encoded(pixels(k), "PNG")), (f"IMG_2020.0{k}.cls", b"%d" % (k % 2))]
    assert shown(by_hand(tmp_path / "0.tar", members)).labels.tolist() == [0, 1, 0, 1]


def test_members_of_other_names_are_told_by_their_first_bytes(tmp_path):
    members = [
        ("1", encoded(pixels(0), "PNG")),
        ("d/2.image", encoded(pixels(1), "PNG")),
        ("README", b"P5"),
        ("3.x", b""),
    ]
    assert np.array_equal(everything(shown(by_hand(tmp_path / "0.tar", members))), np.stack([pixels(0), pixels(1)]))


@pytest.mark.parametrize("option", ["--format=gnu", "--format=pax", "--format=ustar", "--format=v7"])
def test_tars_of_gnu_tar_are_read(tmp_path, option):
    if not shutil.which("tar"):
        pytest.skip("there is no tar")
    folder = tmp_path / "d"
    folder.mkdir()
    for k in range(3):
        (folder / f"a b.{k}.png").write_bytes(encoded(pixels(k), "PNG"))
    (folder / "hard.png").hardlink_to(folder / "a b.0.png")
    (folder / "soft.png").symlink_to("a b.0.png")
    names = ["a b.0.png", "a b.1.png", "a b.2.png", "hard.png", "soft.png"]
    subprocess.run(["tar", option, "-cf", tmp_path / "0.tar", "-C", folder, *names], check=True)
    dataset = shown(tmp_path / "0.tar")
    assert np.array_equal(everything(dataset), np.stack([pixels(k) for k in range(3)]))
    assert "2 links to other members" in dict(dataset.notes)["members"]


def test_a_sparse_member_is_a_bad_sample(tmp_path):
    """GNU tar leaves the holes of a file out, so that its bytes are not in the archive one after the other."""
    if not shutil.which("tar"):
        pytest.skip("there is no tar")
    (tmp_path / "0.png").write_bytes(encoded(pixels(0), "PNG"))
    with (tmp_path / "1.bmp").open("wb") as file:
        file.write(encoded(np.zeros((200, 200, 3), np.uint8), "BMP")[:54])
        file.truncate(120_054)
    command = ["tar", "--sparse", "--hole-detection=raw", "-cf", tmp_path / "0.tar", "-C", tmp_path, "0.png", "1.bmp"]
    subprocess.run(command, check=True)
    with pytest.raises(CorruptSamples, match="sparse") as found:
        everything(shown(tmp_path / "0.tar"))
    assert list(found.value.rows) == [1]


def test_folders_links_and_sparse_leftovers_in_a_tar_are_passed_over(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.png").write_bytes(encoded(pixels(1), "PNG"))
    (tmp_path / "d" / "2.png").symlink_to("1.png")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(tmp_path / "d", "d")
    assert np.array_equal(everything(shown(tmp_path)), pixels(1)[None])


def test_crops_are_cut_out_of_the_full_pictures_as_from_a_folder(tmp_path):
    class Crops:
        sizes = ((8, 6), (5, 5))

        def windows(self, row, height, width):
            return [(row, 1, 20, 30), (0, 0, height, width)]

    (tmp_path / "folder").mkdir()
    files = {f"{k}.jpg": encoded(smooth(40, 60, k), "JPEG") for k in range(3)}
    for name, content in files.items():
        (tmp_path / "folder" / name).write_bytes(content)
    by_hand(tmp_path / "0.tar", files.items())
    ours = shards(path=str(tmp_path / "0.tar"), size=16, crop="worker", holdout=0)
    same = images(path=str(tmp_path / "folder"), size=16, crop="worker", holdout=0)
    assert ours.cuts_crops
    index = torch.tensor([2, 0, 1])
    assert torch.equal(ours.fetch(index)["image"], same.fetch(index)["image"])
    found, wanted = ours.fetch_crops(index, Crops()), same.fetch_crops(index, Crops())
    assert found.keys() == wanted.keys() == {"image/0", "image/1"}
    assert all(torch.equal(found[name], wanted[name]) for name in found)


# --- damage -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_shard(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shard") / "0.tar", range(12)).read_bytes()


@pytest.mark.parametrize("share", [0.07, 0.2, 0.33, 0.5, 0.61, 0.77, 0.9, 1])
@pytest.mark.parametrize("offset", [0, 1, 511])
def test_a_shard_that_has_been_cut_costs_one_sample(tmp_path, whole_shard, share, offset):
    """Wherever: in a header, in a picture, in a class, between two members, or in the zeros at the end."""
    cut = int(share * len(whole_shard.rstrip(b"\0")) + 511) // 512 * 512 + offset
    (tmp_path / "0.tar").write_bytes(whole_shard[:cut])
    write(tmp_path / "1.tar", [12, 13])
    dataset = shown(tmp_path)
    with pytest.raises(CorruptSamples) as found:
        dataset.fetch(torch.arange(len(dataset)))
    (row,) = found.value.rows
    assert row == len(dataset) - 3  # the last one of the cut shard; before it all are whole
    assert "cut" in found.value.rows[row].reason and str(tmp_path / "0.tar") in found.value.rows[row].where
    rest = torch.tensor([k for k in range(len(dataset)) if k != row])
    numbers = [*range(row), 12, 13]
    assert np.array_equal(dataset.fetch(rest)["image"].permute(0, 2, 3, 1), np.stack([pixels(k) for k in numbers]))
    assert dataset.labels[rest].tolist() == [k % 3 for k in numbers]
    with tarfile.open(fileobj=io.BytesIO(whole_shard)) as tar:
        ends = [member.offset_data + member.size for member in tar if member.name.endswith(".png")]
    assert row >= sum(end <= cut for end in ends) - 1  # no more than the last is given up


def test_a_shard_that_is_cut_after_the_start_or_vanishes_is_a_bad_sample(tmp_path, whole_shard):
    (tmp_path / "0.tar").write_bytes(whole_shard)
    write(tmp_path / "1.tar", [12])
    dataset = shown(tmp_path)
    os.truncate(tmp_path / "0.tar", 20_000)
    with pytest.raises(CorruptSamples, match="cut") as found:
        everything(dataset)
    assert 0 not in found.value.rows and 11 in found.value.rows and 12 not in found.value.rows
    fresh = pickle.loads(pickle.dumps(dataset))  # with no file open
    (tmp_path / "0.tar").unlink()
    with pytest.raises(CorruptSamples, match="No such file"):
        fresh.fetch(torch.tensor([0]))
    assert np.array_equal(fresh.fetch(torch.tensor([12]))["image"][0].permute(1, 2, 0), pixels(12))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a tar"),
        (b"<html>404</html>" * 99, "not a tar"),
        (gzip.compress(b"\0" * 1024, mtime=0), "compressed.*gunzip"),
        (b"BZh91AY&SY", "compressed.*bunzip2"),
        (b"\xfd7zXZ\0", "compressed.*unxz"),
        (b"\x28\xb5\x2f\xfd\0\0", "compressed.*unzstd"),
    ],
)
def test_what_is_no_tar_is_named(tmp_path, content, said):
    (tmp_path / "0.tar").write_bytes(content)
    with pytest.raises(UserError, match=rf"dataset\.path: .*0\.tar is {said}"):
        shown(tmp_path)


def test_a_shard_without_pictures_is_named_only_if_all_are_so(tmp_path):
    by_hand(tmp_path / "0.tar", [("1.txt", b"x"), ("1.cls", b"1")])
    with pytest.raises(UserError, match=r"dataset\.path: .* holds no picture: 2 members of 1 shard"):
        shown(tmp_path)
    write(tmp_path / "1.tar", [4])
    assert np.array_equal(everything(shown(tmp_path)), pixels(4)[None])


# --- which shards -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """Ten shards with one sample each, the k-th in sub/k.tar."""
    folder = tmp_path_factory.mktemp("ten") / "sub"
    folder.mkdir()
    for k in range(10):
        write(folder / f"{k:03}.tar", [k])
    (folder / "notes.txt").touch()
    return folder


@pytest.mark.parametrize(
    ("path", "numbers"),
    [
        ("", range(10)), ("..", range(10)), ("004.tar", [4]), ("*.tar", range(10)), ("00[2-4].tar", [2, 3, 4]),
        ("{003..005}.tar", [3, 4, 5]), ("00{7,1}.tar", [1, 7]), ("../*/00{0,9}.tar", [0, 9]),
        ("{005..003}.tar", [3, 4, 5]),
    ],
)  # fmt: skip
def test_a_folder_a_pattern_and_a_list_in_braces_name_shards(ten, path, numbers):
    assert np.array_equal(everything(shown(ten / path)), np.stack([pixels(k) for k in numbers]))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("x.tar", r"there is no .*x\.tar\."),
        ("{008..011}.tar", r"there is no .*010\.tar and 1 more"),
        ("x*.tar", "nothing matches"),
        ("{1..x}.tar", "not a range"),
    ],
)
def test_shards_that_are_not_there_are_named(ten, path, said):
    with pytest.raises(UserError, match=rf"dataset\.path: .*{said}"):
        shown(ten / path)


def test_a_folder_without_shards_is_named(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.path: there is no \.tar file below"):
        shown(tmp_path)


@pytest.mark.parametrize(
    "pattern", ["a{000..010}b", "{0..3}{x,y}", "{9..11}", "{09..11}", "{3..1}", "plain", "{a,b}/{1..2}"]
)
def test_braces_expand_as_in_webdataset(pattern):
    assert expand(pattern) == list(braceexpand(pattern))


def test_the_second_start_walks_through_no_shard_and_a_changed_one_is_walked_again(ten, tmp_path, monkeypatch):
    path = tmp_path / "0.tar"
    path.write_bytes((ten / "001.tar").read_bytes())
    settle(path)
    first = shown(path)

    def walk(_):
        raise AssertionError("walked")

    with monkeypatch.context() as patch:
        patch.setattr("sslcli.data.pictures.tars._walk", walk)
        again = shown(path)
    assert np.array_equal(everything(again), everything(first)) and again.fingerprint() == first.fingerprint()
    write(path, [5, 6])
    assert np.array_equal(everything(shown(path)), np.stack([pixels(5), pixels(6)]))
    assert shown(path).fingerprint() != first.fingerprint()


# --- URLs -------------------------------------------------------------------------------------------


@pytest.fixture
def memory(ten):
    """The ten shards in fsspec's store in memory."""
    store = fsspec.filesystem("memory")
    for path in ten.glob("*.tar"):
        store.pipe(f"/bucket/sub/{path.name}", path.read_bytes())
    store.pipe("/bucket/sub/notes.txt", b"")
    yield store
    store.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("path", "numbers"),
    [
        ("", range(10)), ("/sub", range(10)), ("/sub/*.tar", range(10)), ("/sub/00[2-4].tar", [2, 3, 4]),
        ("/sub/{003..005}.tar", [3, 4, 5]), ("/sub/004.tar", [4]),
    ],
)  # fmt: skip
def test_urls_are_copied_here_and_read_as_files(memory, cache, path, numbers):
    dataset = shown(f"memory://bucket{path}")
    wanted = np.stack([pixels(k) for k in numbers])
    assert np.array_equal(everything(dataset), wanted)
    copies = sorted((cache / "shards").iterdir())
    assert len(copies) == len(wanted) and not any(path.name.endswith(".tmp") for path in copies)


def test_file_urls_and_a_folder_for_copies_are_taken(ten, tmp_path, cache):
    dataset = shown(f"file://{ten}/00*.tar", cache_dir=str(tmp_path / "here"))
    assert np.array_equal(everything(dataset), np.stack([pixels(k) for k in range(10)]))
    assert len(list((tmp_path / "here").iterdir())) == 10 and not (cache / "shards").exists()


def test_a_copy_is_made_once_and_again_when_the_remote_file_is_another(memory, monkeypatch):
    first = shown("memory://bucket/sub/003.tar")
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "get_file", None)  # to ask for a file would fail
        assert shown("memory://bucket/sub/003.tar").fingerprint() == first.fingerprint()
    memory.pipe("/bucket/sub/003.tar", memory.cat("/bucket/sub/004.tar"))
    assert np.array_equal(everything(shown("memory://bucket/sub/003.tar")), pixels(4)[None])


def test_a_web_server_is_asked_for_each_shard_once(ten, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(ten) as (address, asked):
        for path in ("{002..004}.tar", "003.tar"):
            dataset = shown(f"{address}/{path}")
        assert np.array_equal(everything(dataset), pixels(3)[None])
        assert sorted(line for line in asked if line.startswith("GET")) == [f"GET /00{k}.tar" for k in (2, 3, 4)]


@pytest.mark.parametrize(
    "path", ["memory://bucket/none.tar", "memory://nowhere/", "file:///nowhere/*.tar", "nosuch://a/b.tar"]
)
def test_a_url_that_gives_nothing_is_told_in_one_line_and_leaves_nothing(memory, cache, path):
    with pytest.raises(UserError, match=r"dataset\.path: .*") as caught:
        shown(path)
    assert "\n" not in str(caught.value)
    assert not (cache / "shards").exists()


def test_a_copy_that_came_incomplete_is_refused_and_removed(memory, cache, monkeypatch):
    def half(self, name, local, **_):
        Path(local).write_bytes(self.cat(name)[:1000])

    monkeypatch.setattr(type(memory), "get_file", half)
    with pytest.raises(UserError, match=r"dataset\.path: .*came incomplete"):
        shown("memory://bucket/sub/003.tar")
    assert not list((cache / "shards").iterdir())


# --- the order, and the whole way -------------------------------------------------------------------


def batches(dataset, workers, start=0, count=12):
    loader = Loader(dataset, batch_size=4, accumulate=2, seed=3, workers=workers)
    stream = loader.batches(start)
    return [torch.cat([micro["image"] for micro in next(stream)]) for _ in range(count)]


def test_a_resumed_run_goes_on_at_the_exact_sample_with_any_number_of_workers(ten):
    dataset = shown(ten)
    undisturbed = torch.stack(batches(dataset, 0))
    assert len({bytes(x.numpy()) for x in undisturbed[:2].flatten(0, 1)}) == 8  # an epoch: two batches, all different
    for workers, start in ((2, 0), (0, 5), (2, 5)):
        assert torch.equal(torch.stack(batches(dataset, workers, start, 12 - start)), undisturbed[start:])


@pytest.mark.slow
def test_workers_that_are_started_afresh_read_the_same(ten, tmp_path):
    """Where there is no fork, a worker gets the dataset pickled and opens the shards itself."""
    script = tmp_path / "spawned.py"
    script.write_text(
        "import sys, torch\n"
        "from sslcli.data.pictures.shards import shards\n"
        "from sslcli.data.loader import Loader\n"
        "if __name__ == '__main__':\n"
        "    torch.multiprocessing.set_start_method('spawn')\n"
        "    dataset = shards(path=sys.argv[1], size=9, holdout=0)\n"
        "    dataset.fetch(torch.arange(5))\n"  # shards are open when the workers start
        "    stream = Loader(dataset, batch_size=4, accumulate=2, seed=3, workers=2).batches(0)\n"
        "    seen = [torch.cat([micro['image'] for micro in next(stream)]) for _ in range(12)]\n"
        "    stream.close()\n"
        "    torch.save(torch.stack(seen), sys.argv[2])\n"
    )
    subprocess.run([sys.executable, str(script), str(ten), str(tmp_path / "seen.pt")], check=True, timeout=120)
    assert torch.equal(torch.load(tmp_path / "seen.pt"), torch.stack(batches(shown(ten), 0)))


def half_labelled(folder):
    folder.mkdir()
    for k in range(4):
        write(folder / f"{k}.tar", range(20 * k, 20 * k + 20), label=lambda k: k % 3 if k % 2 else None)
    return folder


TRAIN = ("dataset=shards", "dataset.size=16", "dataset.workers=0", "encoder=convnet_small", "train.batch_size=16",
         "train.steps=3", "device=cpu", "views=small")  # fmt: skip


def test_a_set_with_some_labels_trains_on_all_and_is_probed_on_those(tmp_path):
    folder = half_labelled(tmp_path / "shards")
    arguments = (*TRAIN, f"dataset.path={folder}", f"run_dir={tmp_path / 'run'}")
    score = run(compose(*arguments, "objective=infonce", "probe.max_samples=all"), tmp_path / "run")
    assert 0 <= score <= 1
    log = (tmp_path / "run" / "train.log").read_text()
    assert "72 training samples, 8 held out" in log  # a fifth of the 40 that have a label
    assert "bank 32 train, queries 8 held out" in " ".join(log.split())  # wrapped to the width of a terminal


def test_an_objective_that_reads_labels_refuses_a_set_with_some(tmp_path):
    folder = half_labelled(tmp_path / "shards")
    arguments = (
        *TRAIN,
        f"dataset.path={folder}",
        "objective=infonce",
        "objective.form=supervised",
        "objective.label=class",
    )
    with pytest.raises(UserError, match="objective: label=class: 40 of 72 samples have no label"):
        run(compose(*arguments), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
