"""The published sets, from files built byte by byte in their published layouts, and from damaged ones."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchvision
from support.oddities import encoded, smooth
from support.webserver import serving

from sslcli.data.download import alone
from sslcli.data.published import class_names
from sslcli.data.published.cifar import cifar10, cifar100
from sslcli.data.published.fashion_mnist import fashion_mnist_mini
from sslcli.data.published.idx import NAMES
from sslcli.data.published.imagenet import imagenet
from sslcli.data.published.mnist import mnist
from sslcli.data.published.stl10 import stl10
from sslcli.errors import UserError


def everything(dataset):
    return dataset.fetch(torch.arange(len(dataset)))["image"]


def chw(pictures):
    """PIL pictures as one uint8 tensor (N, C, H, W)."""
    arrays = [np.atleast_3d(np.array(picture)) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


# --- CIFAR from pickles ---------------------------------------------------------------------------

CIFAR10 = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
CIFAR100 = ["train", "test"]


class Python2(pickle._Pickler):
    """Writes bytes as the text of Python 2, which wrote the published files in 2009."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, text):
        self.write(b"T" + struct.pack("<i", len(text)) + text)
        self.memoize(text)

    dispatch[bytes] = save_bytes


def as_python2(content, protocol):
    file = io.BytesIO()
    Python2(file, protocol).dump(content)
    raw = file.getvalue()
    assert b"cnumpy._core.multiarray\n" in raw and b"_codecs" not in raw
    return raw.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")  # the module's name then


def write_cifar(root, n=4, python2=False, fine=False):
    """The batches as published: protocol 2 dicts with bytes keys; returns them by name."""
    folder = root / ("cifar-100-python" if fine else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    generator, batches = np.random.default_rng(0), {}
    for name in CIFAR100 if fine else CIFAR10:
        batches[name] = {
            b"batch_label": b"a batch",
            b"data": generator.integers(0, 256, (n, 3072), dtype=np.uint8),
            b"filenames": [b"x.png"] * n,
        }
        if fine:
            batches[name][b"fine_labels"] = generator.integers(0, 100, n).tolist()
            batches[name][b"coarse_labels"] = generator.integers(0, 20, n).tolist()
        else:
            batches[name][b"labels"] = generator.integers(0, 10, n).tolist()
        raw = (as_python2 if python2 else pickle.dumps)(batches[name], protocol=2)
        (folder / name).write_bytes(raw)
    return batches


@pytest.mark.parametrize("python2", [False, True])
def test_cifar10_reads_the_published_layout(tmp_path, python2):
    batches = write_cifar(tmp_path, python2=python2)
    dataset = cifar10(path=str(tmp_path), download=False)
    assert len(dataset) == 20 and len(dataset.held_out) == 4
    assert dataset.labels.tolist() == sum((batches[name][b"labels"] for name in CIFAR10[:5]), [])
    assert dataset.held_out.labels.tolist() == batches["test_batch"][b"labels"]
    pixels = dataset.fetch(torch.tensor([6]))["image"][0]
    row = batches["data_batch_2"][b"data"][2]
    assert pixels.dtype == torch.uint8 and pixels.shape == (3, 32, 32)
    for channel, y, x in ((0, 0, 0), (1, 5, 9), (2, 31, 30)):  # 1024 red, 1024 green, 1024 blue, row by row
        assert pixels[channel, y, x] == row[1024 * channel + 32 * y + x]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_without_running_it(tmp_path):
    write_cifar(tmp_path)
    trap = tmp_path / "trap"
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps({b"data": Malicious(str(trap)), b"labels": []}, protocol=2))
    with pytest.raises(UserError, match=r"dataset\.path.*data_batch_3.*mkdir"):
        cifar10(path=str(tmp_path), download=False)
    assert not trap.exists()
    pickle.loads(path.read_bytes())  # the trap works
    assert trap.exists()


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch"])
@pytest.mark.parametrize("how", ["cut", "empty", "web page", "text", "a list", "no labels", "wrong shape", "counts"])
def test_a_damaged_cifar_batch_is_named(tmp_path, name, how):
    batch = write_cifar(tmp_path)[name]
    path = tmp_path / "cifar-10-batches-py" / name
    content = {
        "cut": path.read_bytes()[:-2000],
        "empty": b"",
        "web page": b"<html>404</html>",
        "text": b"Not found\n",
        "a list": pickle.dumps([1, 2], protocol=2),
        "no labels": pickle.dumps({b"data": batch[b"data"]}, protocol=2),
        "wrong shape": pickle.dumps({**batch, b"data": batch[b"data"][:, :3000]}, protocol=2),
        "counts": pickle.dumps({**batch, b"labels": batch[b"labels"][:-1]}, protocol=2),
    }[how]
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"dataset\.path.*{name}"):
        cifar10(path=str(tmp_path), download=False)


def test_a_missing_cifar_batch_is_named(tmp_path):
    write_cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_5").unlink()
    with pytest.raises(UserError, match=r"dataset\.path.*data_batch_5 is missing"):
        cifar10(path=str(tmp_path), download=False)


def test_cifar100_has_the_fine_labels(tmp_path):
    batches = write_cifar(tmp_path, fine=True)
    dataset = cifar100(path=str(tmp_path), download=False)
    for part, name in ((dataset, "train"), (dataset.held_out, "test")):
        assert part.labels.tolist() == batches[name][b"fine_labels"]
        assert everything(part).flatten().tolist() == batches[name][b"data"].flatten().tolist()


@pytest.mark.parametrize("fine", [False, True])
def test_torchvision_reads_the_same_from_the_same_cifar_files(tmp_path, fine, monkeypatch):
    write_cifar(tmp_path, fine=fine, python2=True)
    theirs = torchvision.datasets.CIFAR100 if fine else torchvision.datasets.CIFAR10
    monkeypatch.setattr(theirs, "_check_integrity", lambda self: True)
    meta = {"fine_label_names" if fine else "label_names": [str(i) for i in range(100)]}
    folder = tmp_path / theirs.base_folder
    (folder / theirs.meta["filename"]).write_bytes(pickle.dumps(meta, protocol=2))
    monkeypatch.setitem(theirs.meta, "md5", None)
    ours = (cifar100 if fine else cifar10)(path=str(tmp_path), download=False)
    for part, train in ((ours, True), (ours.held_out, False)):
        found = theirs(str(tmp_path), train=train)
        assert torch.equal(everything(part), chw(found[i][0] for i in range(len(found))))
        assert part.labels.tolist() == found.targets


# --- MNIST from idx files -------------------------------------------------------------------------


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_arrays(train=12, test=5):
    generator = np.random.default_rng(1)
    sizes = [(train, 28, 28), (train,), (test, 28, 28), (test,)]
    return {n: generator.integers(0, 256 if len(s) > 1 else 10, s, dtype=np.uint8) for n, s in zip(NAMES, sizes)}


@pytest.mark.parametrize("layout", ["", "MNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_reads_the_published_files_where_people_put_them(tmp_path, layout, packed):
    arrays, folder = mnist_arrays(), tmp_path / layout
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    dataset = mnist(path=str(tmp_path), download=False)
    for part, (images, labels) in ((dataset, NAMES[:2]), (dataset.held_out, NAMES[2:])):
        assert everything(part)[:, 0].tolist() == arrays[images].tolist()
        assert part.labels.tolist() == arrays[labels].tolist()


def test_torchvision_reads_the_same_from_the_same_mnist_files(tmp_path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for name, array in mnist_arrays().items():
        (tmp_path / "MNIST" / "raw" / name).write_bytes(idx_bytes(array))
    ours = mnist(path=str(tmp_path), download=False)
    for part, train in ((ours, True), (ours.held_out, False)):
        theirs = torchvision.datasets.MNIST(str(tmp_path), train=train)
        assert torch.equal(everything(part)[:, 0], theirs.data) and torch.equal(part.labels, theirs.targets)


# --- STL-10 from binary files ---------------------------------------------------------------------

STL10 = {"train": 6, "test": 4, "unlabeled": 9}


def write_stl10(root):
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    generator, images = np.random.default_rng(2), {}
    for name, count in STL10.items():
        images[name] = generator.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)  # columns, then rows
        (folder / f"{name}_X.bin").write_bytes(images[name].tobytes())
        if name != "unlabeled":
            (folder / f"{name}_y.bin").write_bytes(bytes(1 + i % 10 for i in range(count)))
    return images


def test_stl10_trains_on_train_and_unlabelled_and_goes_column_by_column(tmp_path):
    images = write_stl10(tmp_path)
    dataset = stl10(path=str(tmp_path), download=False)
    assert len(dataset) == 15 and len(dataset.held_out) == 4
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4, 5] + [-1] * 9
    picked = dataset.fetch(torch.tensor([14, 0, 6, 5, 0]))["image"]
    expected = [images[name][i] for name, i in (("unlabeled", 8), ("train", 0), ("unlabeled", 0), ("train", 5))]
    for row, columns in zip(picked, [*expected, expected[1]]):
        assert row.shape == (3, 96, 96) and row[1, 30, 70] == columns[1, 70, 30]
        assert torch.equal(row, torch.from_numpy(columns).transpose(1, 2))


def test_torchvision_reads_the_same_from_the_same_stl10_files(tmp_path, monkeypatch):
    write_stl10(tmp_path)
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)
    ours = stl10(path=str(tmp_path), download=False)
    for part, split in ((ours, "train+unlabeled"), (ours.held_out, "test")):
        theirs = torchvision.datasets.STL10(str(tmp_path), split=split)
        assert torch.equal(everything(part), chw(theirs[i][0] for i in range(len(theirs))))
        assert part.labels.tolist() == theirs.labels.tolist()


def test_stl10_is_mapped_again_by_a_process_that_does_not_fork(tmp_path):
    write_stl10(tmp_path)
    dataset = stl10(path=str(tmp_path), download=False)
    raw = pickle.dumps(dataset.parts)
    assert len(raw) < 1000
    assert torch.equal(pickle.loads(raw)[1].rows, dataset.parts[1].rows)


@pytest.mark.parametrize("name", ["train_X", "train_y", "unlabeled_X", "test_X", "test_y"])
@pytest.mark.parametrize("how", ["missing", "cut", "empty", "web page"])
def test_a_damaged_stl10_file_is_named(tmp_path, name, how):
    write_stl10(tmp_path)
    path = tmp_path / "stl10_binary" / f"{name}.bin"
    content = {"cut": path.read_bytes()[:-1], "empty": b"", "web page": b"<html>404</html>"}.get(how)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=rf"dataset\.path.*{name}\.bin is (missing|damaged)"):
        stl10(path=str(tmp_path), download=False)


# --- names of classes -----------------------------------------------------------------------------


def test_classes_have_their_published_names():
    assert tuple(torchvision.datasets.FashionMNIST.classes) == class_names.FASHION
    assert fashion_mnist_mini().classes == fashion_mnist_mini().held_out.classes == class_names.FASHION
    assert [name.split(" - ")[0] for name in torchvision.datasets.MNIST.classes] == list(class_names.DIGITS)
    fine = class_names.CIFAR100  # the published file lists them in the order of the alphabet
    assert len({*fine}) == 100 and fine == tuple(sorted(fine)) and {"apple", "lawn_mower", "worm"} < {*fine}
    for ten in (class_names.CIFAR10, class_names.STL10):
        assert len({*ten}) == 10 and ten == tuple(sorted(ten))


# --- ImageNet from folders ------------------------------------------------------------------------

WNIDS = ["n01440764", "n01443537", "n02102040"]


def write_imagenet(root, splits=("train", "val"), wnids=WNIDS):
    for split in splits:
        for k, wnid in enumerate(wnids):
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for i in range(4 if split == "train" else 2):
                (folder / f"{wnid}_{i}.JPEG").write_bytes(encoded(smooth(20, 30, 10 * k + i), "JPEG"))


def test_torchvision_finds_the_same_in_the_same_imagenet_folders(tmp_path):
    """What its ImageNet is, but for the check of the archives: a folder of classes."""
    write_imagenet(tmp_path)
    ours = imagenet(path=str(tmp_path))
    assert ours.spec["image"].shape == (3, 224, 224)
    for part, split in ((ours, "train"), (ours.held_out, "val")):
        theirs = torchvision.datasets.ImageFolder(str(tmp_path / split))
        assert [part.encoded.source(i) for i in range(len(part))] == [path for path, _ in theirs.samples]
        assert part.labels.tolist() == theirs.targets
        assert part.classes == ("tench (n01440764)", "goldfish (n01443537)", "English springer (n02102040)")
    small = imagenet(path=str(tmp_path), size=20)
    centred = [picture.crop((5, 0, 25, 20)) for picture, _ in torchvision.datasets.ImageFolder(str(tmp_path / "val"))]
    assert (everything(small.held_out).int() - chw(centred).int()).abs().max() <= 1


def test_imagenet_holds_out_train_when_asked(tmp_path):
    write_imagenet(tmp_path)
    dataset = imagenet(path=str(tmp_path), holdout=0.25)
    assert len(dataset) == 9 and len(dataset.held_out) == 3


def flat_val(root):
    for path in (root / "val").glob("*/*"):
        path.rename(root / "val" / path.name)
    for folder in (root / "val").glob("n*/"):
        if folder.is_dir():
            folder.rmdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "val").rename(root / "test"), "there is no val folder"),
        (lambda root: (root / "train").rename(root / "training"), "there is no train folder"),
        (flat_val, "pictures of one folder only"),
        (lambda root: (root / "train" / WNIDS[1]).rename(root / "train" / "goldfish"), "goldfish"),
        (lambda root: (root / "val" / WNIDS[1]).rename(root / "val" / "n99999999"), "not have the same classes"),
    ],
)
def test_what_is_not_laid_out_as_imagenet_is_refused_with_the_way_out(tmp_path, spoil, said):
    write_imagenet(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=rf"dataset\.path: .*{said}") as caught:
        imagenet(path=str(tmp_path))
    assert "\n" not in str(caught.value)


# --- downloads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [cifar10, cifar100, mnist, stl10])
def test_without_files_and_without_download_the_message_says_both(tmp_path, make):
    with pytest.raises(UserError, match=r"dataset\.path.*dataset\.download is false") as caught:
        make(path=str(tmp_path / "data"), download=False)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of this machine: its folder and its address."""
    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(folder) as (address, _):
        yield folder, address


def publish(server, monkeypatch, theirs, folder):
    """Let the published address be that of an archive of ``folder`` on ``server``."""
    archive = server[0] / theirs.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setattr(theirs, "url", f"{server[1]}/{theirs.filename}")
    monkeypatch.setattr(theirs, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return archive


def test_an_archive_is_fetched_and_unpacked_once(tmp_path, monkeypatch, server):
    batches = write_cifar(tmp_path / "made", fine=True)
    archive = publish(server, monkeypatch, torchvision.datasets.CIFAR100, tmp_path / "made" / "cifar-100-python")
    path = str(tmp_path / "data")
    assert cifar100(path=path).labels.tolist() == batches["train"][b"fine_labels"]
    assert not list((tmp_path / "data").glob(".unpacking*"))
    archive.unlink()
    assert len(cifar100(path=path)) == 4


@pytest.mark.parametrize("how", ["another file", "no such file"])
def test_a_download_that_fails_is_told_and_leaves_nothing(tmp_path, monkeypatch, server, how):
    write_stl10(tmp_path / "made")
    theirs = torchvision.datasets.STL10
    archive = publish(server, monkeypatch, theirs, tmp_path / "made" / "stl10_binary")
    if how == "another file":
        archive.write_bytes(archive.read_bytes() + b"\0")
    else:
        archive.unlink()
    with pytest.raises(UserError, match=r"dataset\.path: there is no stl10_binary .*could not be downloaded") as caught:
        stl10(path=str(tmp_path / "data"))
    assert "\n" not in str(caught.value) and not (tmp_path / "data").exists()


@pytest.mark.parametrize("make", [cifar10, cifar100, mnist, stl10])
@pytest.mark.parametrize("before", [[], ["data"], ["data", "data/mine.txt"]])
def test_where_nothing_answers_nothing_is_left_that_was_not_there(tmp_path, monkeypatch, server, make, before):
    """By default the folder is ``data`` in whatever folder the command is started in."""
    theirs = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST", "stl10": "STL10"}[make.__name__]
    where = ("mirrors", [f"{server[1]}/a/", f"{server[1]}/b/"]) if make is mnist else ("url", f"{server[1]}/x.tar.gz")
    monkeypatch.setattr(getattr(torchvision.datasets, theirs), *where)
    here = tmp_path / "here"
    here.mkdir()
    for name in before:
        (here / name).write_text("") if name.endswith(".txt") else (here / name).mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(UserError, match="could not be downloaded"):
        make()
    assert sorted(str(path.relative_to(here)) for path in here.rglob("*")) == before


def test_an_archive_that_was_put_there_is_unpacked_without_a_network(tmp_path, monkeypatch, server):
    write_cifar(tmp_path / "made")
    theirs = torchvision.datasets.CIFAR10
    archive = publish(server, monkeypatch, theirs, tmp_path / "made" / "cifar-10-batches-py")
    (tmp_path / "data").mkdir()
    archive.rename(tmp_path / "data" / archive.name)
    assert len(cifar10(path=str(tmp_path / "data"))) == 20


def test_one_at_a_time_works_for_a_folder_and_leaves_nothing_there(tmp_path):
    inside = []

    def enter(k):
        with alone(tmp_path / "data"):
            inside.append(k)
            assert inside == [k]
            assert inside.pop() == k

    with ThreadPoolExecutor(8) as pool:  # a lock is of an open file, so threads exclude each other as processes do
        list(pool.map(enter, range(200)))
    assert not list(tmp_path.iterdir())


def test_a_dead_mirror_is_passed_over(tmp_path, monkeypatch, server):
    theirs, (folder, address) = torchvision.datasets.MNIST, server
    md5s, arrays = [], mnist_arrays()
    for name, array in arrays.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        md5s.append((f"{name}.gz", hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest()))
    monkeypatch.setattr(theirs, "mirrors", [f"{address}/dead/", f"{address}/"])
    monkeypatch.setattr(theirs, "resources", md5s)
    dataset = mnist(path=str(tmp_path / "data"))
    assert everything(dataset.held_out)[:, 0].tolist() == arrays[NAMES[2]].tolist()
