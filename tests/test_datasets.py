"""Datasets from the package, from files in their published layouts, and from damaged ones."""

import gzip
import hashlib
import lzma
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.datasets.base import Columns, Subset, balanced, with_held_out
from sslcli.datasets.cifar10 import cifar10
from sslcli.datasets.fashion_mnist import EMBEDDED, fashion_mnist, fashion_mnist_mini
from sslcli.datasets.images import images
from sslcli.datasets.synthetic import synthetic
from sslcli.errors import UserError
from sslcli.types import Field, Spec


def numbers(n, labels=None):
    """A dataset whose column 'x' is the sample's index."""
    return Columns(Spec(x=Field(())), {"x": torch.arange(n)}, labels)


def samples(dataset):
    return dataset.fetch(torch.arange(len(dataset)))["x"].tolist()


# --- the embedded file ----------------------------------------------------------------------------


def test_the_embedded_file_is_the_published_one():
    raw = EMBEDDED.read_bytes()
    published = "bba195dcec0f0e48f408af004e01798aeaadbd90f3c6feece99a52fc4d747aca"
    assert hashlib.sha256(raw).hexdigest() == published
    assert 7e6 < len(raw) < 8e6


def test_the_embedded_file_decodes_with_the_standard_library():
    data = lzma.decompress(EMBEDDED.read_bytes())
    assert len(data) == 20_000 * (1 + 28 * 28) and max(data[:20_000]) == 9
    dataset = fashion_mnist_mini()
    for part, start in ((dataset, 0), (dataset.held_out, 10_000)):
        for i in (0, 1, 5000, 9999):
            assert part.labels[i] == data[start + i]
            pixels = data[20_000 + 784 * (start + i) : 20_000 + 784 * (start + i + 1)]
            assert bytes(part.fetch(torch.tensor([i]))["image"].flatten().tolist()) == pixels


def test_the_embedded_splits_are_balanced_and_disjoint():
    dataset = fashion_mnist_mini()
    assert torch.bincount(dataset.labels).tolist() == [1000] * 10
    assert torch.bincount(dataset.held_out.labels).tolist() == [1000] * 10
    train, test = (
        {bytes(row) for row in part.fetch(torch.arange(10_000))["image"].flatten(1).numpy()}
        for part in (dataset, dataset.held_out)
    )
    assert len(train & test) < 5  # Fashion-MNIST itself repeats a handful of pictures


def test_the_embedded_pixels_have_the_published_statistics():
    dataset = fashion_mnist_mini()
    x = dataset.fetch(torch.arange(10_000))["image"].float() / 255
    field = dataset.spec["image"]
    assert x.shape[1:] == field.shape == (1, 28, 28)
    assert x.mean().item() == pytest.approx(field.mean[0], abs=0.01)
    assert x.std().item() == pytest.approx(field.std[0], abs=0.01)


@pytest.mark.parametrize("make", [fashion_mnist_mini, lambda: synthetic(num_samples=50)])
def test_fetch_gives_the_columns_of_the_spec_and_never_labels(make):
    dataset = make()
    for part in (dataset, dataset.held_out):
        batch = part.fetch(torch.tensor([3, 0, 3]))
        assert list(batch) == list(part.spec) == ["image"]
        assert batch["image"].shape == (3, *part.spec["image"].shape)
        assert batch["image"].dtype == torch.uint8 and torch.equal(batch["image"][0], batch["image"][2])


# --- holding out ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holdout", "labelled", "expected"),
    [(None, True, 20), (None, False, 5), (0.1, True, 10), (0.1, False, 10), (0.333, True, 33), (0, True, 0)],
)
def test_a_share_of_train_is_held_out_disjointly(holdout, labelled, expected):
    labels = torch.arange(100) % 7 if labelled else None
    kept = with_held_out(numbers(100, labels), None, holdout)
    out = kept.held_out
    assert len(kept) == 100 - expected
    if not expected:
        assert out is None
        return
    assert len(out) == expected and sorted(samples(kept) + samples(out)) == list(range(100))
    if labelled:
        assert out.labels.tolist() == [i % 7 for i in samples(out)]
        assert kept.labels.tolist() == [i % 7 for i in samples(kept)]


def test_holding_out_is_deterministic_and_not_the_tail():
    torch.manual_seed(1)
    first = samples(with_held_out(numbers(100), None, 0.2).held_out)
    torch.manual_seed(2)
    second = samples(with_held_out(numbers(100), None, 0.2).held_out)
    assert first == second and first not in (list(range(20)), list(range(80, 100)))


def test_a_test_split_is_used_unless_holdout_asks_for_a_part_of_train():
    train, test = numbers(100, torch.zeros(100).long()), numbers(30)
    assert with_held_out(train, test, None) is train and train.held_out is test
    assert len(with_held_out(numbers(100), test, 0.3).held_out) == 30
    assert with_held_out(numbers(100), test, 0.3).held_out is not test


@pytest.mark.parametrize("holdout", [1.0, -0.1, 20, float("nan")])
def test_a_holdout_that_is_no_fraction_is_refused(holdout):
    with pytest.raises(UserError, match=r"dataset\.holdout"):
        with_held_out(numbers(100), None, holdout)


def test_a_subset_of_a_subset_keeps_samples_and_labels_together():
    whole = numbers(10, torch.arange(10) * 10)
    subset = Subset(Subset(whole, torch.tensor([9, 7, 5, 3])), torch.tensor([2, 0]))
    assert len(subset) == 2 and samples(subset) == [5, 9] and subset.labels.tolist() == [50, 90]


# --- balanced picks -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 10, 12, 30, 200])
def test_balanced_picks_classes_as_equally_as_the_labels_allow(count):
    sizes = [50, 3, 20, 1]
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    picked = balanced(labels, count)
    assert picked.unique().tolist() == picked.tolist()  # sorted, none twice
    taken = torch.bincount(labels[picked], minlength=4).tolist()
    level = 0  # fill all classes to a level, then some of those with more left by one
    while sum(min(size, level + 1) for size in sizes) <= count and level < 50:
        level += 1
    assert sum(taken) == min(count, sum(sizes))
    assert all(min(size, level) <= n <= min(size, level + 1) for n, size in zip(taken, sizes))


def test_balanced_copes_with_absent_classes_and_is_a_fixed_random_pick():
    labels = torch.tensor([2, 5] * 50)
    torch.manual_seed(3)
    picked = balanced(labels, 20)
    assert torch.bincount(labels[picked]).tolist() == [0, 0, 10, 0, 0, 10]
    torch.manual_seed(4)
    assert torch.equal(balanced(labels, 20), picked) and picked.tolist() != list(range(20))


# --- synthetic ------------------------------------------------------------------------------------


def test_synthetic_is_a_function_of_its_seed():
    everything = torch.arange(40)
    first, again, other = (synthetic(num_samples=50, seed=s).fetch(everything)["image"] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_synthetic_has_the_shape_classes_and_split_asked_for():
    dataset = synthetic(num_samples=60, num_classes=3, size=9, channels=2)
    assert len(dataset) == 48 and len(dataset.held_out) == 12
    assert dataset.spec["image"].shape == (2, 9, 9) and len(dataset.spec["image"].mean) == 2
    total = torch.bincount(dataset.labels) + torch.bincount(dataset.held_out.labels, minlength=3)
    assert total.tolist() == [20, 20, 20]


def test_synthetic_classes_can_be_told_apart():
    dataset = synthetic(num_samples=200, num_classes=4, size=12)
    x = dataset.fetch(torch.arange(160))["image"].float().flatten(1)
    means = torch.stack([x[dataset.labels == c].mean(0) for c in range(4)])
    query = dataset.held_out.fetch(torch.arange(40))["image"].float().flatten(1)
    assert torch.equal(torch.cdist(query, means).argmin(1), dataset.held_out.labels)


@pytest.mark.parametrize("name", ["num_samples", "num_classes", "size", "channels"])
def test_synthetic_refuses_nothing_at_all(name):
    with pytest.raises(ValueError, match=name):
        synthetic(**{name: 0})


# --- Fashion-MNIST from idx files -----------------------------------------------------------------

IDX = {
    "train-images-idx3-ubyte": (12, 28, 28),
    "train-labels-idx1-ubyte": (12,),
    "t10k-images-idx3-ubyte": (5, 28, 28),
    "t10k-labels-idx1-ubyte": (5,),
}


def write_idx(folder, packed=False):
    """The four files with seeded contents; returns the arrays by name."""
    folder.mkdir(parents=True, exist_ok=True)
    generator, arrays = np.random.default_rng(0), {}
    for name, shape in IDX.items():
        arrays[name] = generator.integers(0, 10 if len(shape) == 1 else 256, shape, dtype=np.uint8)
        raw = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + arrays[name].tobytes()
        path = folder / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(raw) if packed else raw)
    return arrays


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("inside", [".", "FashionMNIST/raw"])
def test_fashion_mnist_reads_idx_files(tmp_path, packed, inside):
    arrays = write_idx(tmp_path / inside, packed)
    dataset = fashion_mnist(path=str(tmp_path))
    for part, prefix, n in ((dataset, "train", 12), (dataset.held_out, "t10k", 5)):
        assert len(part) == n and part.labels.dtype == torch.int64
        assert part.labels.tolist() == arrays[f"{prefix}-labels-idx1-ubyte"].tolist()
        pixels = part.fetch(torch.arange(n))["image"]
        assert np.array_equal(pixels.numpy(), arrays[f"{prefix}-images-idx3-ubyte"][:, None])


def test_fashion_mnist_holds_out_train_when_asked(tmp_path):
    write_idx(tmp_path)
    dataset = fashion_mnist(path=str(tmp_path), holdout=0.25)
    assert len(dataset) == 9 and len(dataset.held_out) == 3


@pytest.mark.parametrize("name", IDX)
def test_a_missing_idx_file_is_named(tmp_path, name):
    write_idx(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=rf"dataset\.path.*{name}"):
        fashion_mnist(path=str(tmp_path))


def test_a_missing_idx_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.path.*nowhere"):
        fashion_mnist(path=str(tmp_path / "nowhere"))


def refuses_idx(tmp_path, name):
    with pytest.raises(UserError, match=rf"dataset\.path.*{name}"):
        fashion_mnist(path=str(tmp_path))


@pytest.mark.parametrize("keep", [0, 3, 4, 7, 10, 16, 1000, -1])
def test_a_cut_idx_file_is_damaged(tmp_path, keep):
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:keep])
    refuses_idx(tmp_path, path.name)


def test_an_idx_file_with_bytes_too_many_or_a_web_page_in_it_is_damaged(tmp_path):
    write_idx(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    for content in (path.read_bytes() + b"\0", b"<html>404</html>", b"\0\0\x0d" + path.read_bytes()[3:]):
        path.write_bytes(content)
        refuses_idx(tmp_path, path.name)


@pytest.mark.parametrize("how", ["cut", "flipped", "not gzip", "empty"])
def test_a_damaged_gzip_file_is_named(tmp_path, how):
    write_idx(tmp_path, packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    content = {"cut": path.read_bytes()[:-100], "flipped": raw, "not gzip": b"<html>", "empty": b""}[how]
    path.write_bytes(content)
    refuses_idx(tmp_path, path.name)


@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_idx_files_that_do_not_belong_together_are_refused(tmp_path, name):
    """As many labels as images, and images of 28 x 28."""
    write_idx(tmp_path)
    shape = (11,) if "labels" in name else (5, 27, 28)
    raw = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + bytes(int(np.prod(shape)))
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match=r"dataset\.path"):
        fashion_mnist(path=str(tmp_path))


# --- CIFAR-10 from pickles ------------------------------------------------------------------------

CIFAR = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def write_cifar(root, n=4, python2=False):
    """The six batches as published: a protocol 2 dict with bytes keys; returns them by name."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator, batches = np.random.default_rng(0), {}
    for name in CIFAR:
        batches[name] = {
            b"batch_label": b"a batch",
            b"labels": generator.integers(0, 10, n).tolist(),
            b"data": generator.integers(0, 256, (n, 3072), dtype=np.uint8),
            b"filenames": [b"x.png"] * n,
        }
        raw = pickle.dumps(batches[name], protocol=2)
        if python2:  # the module's name when the files were made, in 2009
            assert b"cnumpy._core.multiarray\n" in raw
            raw = raw.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
        (folder / name).write_bytes(raw)
    return batches


@pytest.mark.parametrize("python2", [False, True])
def test_cifar10_reads_the_published_layout(tmp_path, python2):
    batches = write_cifar(tmp_path, python2=python2)
    dataset = cifar10(path=str(tmp_path), download=False)
    assert len(dataset) == 20 and len(dataset.held_out) == 4
    assert dataset.labels.tolist() == sum((batches[name][b"labels"] for name in CIFAR[:5]), [])
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


def test_without_cifar_and_without_download_the_message_says_both(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.path.*dataset\.download is false"):
        cifar10(path=str(tmp_path), download=False)
    assert not list(tmp_path.iterdir())


# --- folders of pictures --------------------------------------------------------------------------


def save(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array))
    (image.convert(mode) if mode else image).save(path, **options)


def plain(colour, height=20, width=20):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, len(colour)))


def only(dataset, i=0):
    return dataset.fetch(torch.tensor([i]))["image"][0]


def one(tmp_path, size=8):
    """The picture of a folder with one."""
    return only(images(path=str(tmp_path), size=size, holdout=0))


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


def test_upper_case_extensions_count_and_other_files_do_not(tmp_path):
    for name in ("a.PNG", "b.JPG", "c.Jpeg", "d.BMP", "e.webp", "f.gif", "g.tif", "h.ppm"):
        save(tmp_path / name, plain((200, 100, 50)))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    dataset = images(path=str(tmp_path), size=8, holdout=0)
    assert len(dataset) == 8
    pixels = dataset.fetch(torch.arange(8))["image"].float()
    assert (pixels - torch.tensor([200.0, 100, 50]).view(3, 1, 1)).abs().max() <= 12  # GIF's palette, JPEG


def test_a_palette_with_transparency_is_laid_on_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]] * 2, np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255] + [0] * 750)
    image.resize((16, 16), Image.Resampling.NEAREST).save(tmp_path / "p.png", transparency=0)
    pixels = one(tmp_path, 16)
    assert pixels[:, 8, 2].tolist() == [255, 255, 255] and pixels[:, 8, 13].tolist() == [0, 0, 255]


def test_an_alpha_channel_is_laid_on_white(tmp_path):
    save(tmp_path / "rgba.png", plain((100, 0, 200, 51)))  # one fifth of the colour
    assert one(tmp_path)[:, 4, 4].tolist() == pytest.approx([224, 204, 244], abs=1)


def test_gray_with_alpha_is_laid_on_white(tmp_path):
    image = Image.merge("LA", [Image.new("L", (9, 9), 0), Image.new("L", (9, 9), 0)])
    image.save(tmp_path / "la.png")
    assert one(tmp_path).unique().tolist() == [255]


def test_sixteen_bits_a_pixel_keep_their_high_byte(tmp_path):
    ramp = np.tile(np.arange(16, dtype=np.uint16) * 4096 + 200, (16, 1))
    save(tmp_path / "deep.png", ramp)
    assert one(tmp_path, 16)[:, 3].tolist() == [[16 * i for i in range(16)]] * 3


def test_a_gray_picture_becomes_three_equal_channels(tmp_path):
    save(tmp_path / "grey.png", np.full((9, 9), 77, np.uint8))
    assert one(tmp_path).unique().tolist() == [77]


def test_one_bit_a_pixel_is_black_and_white(tmp_path):
    save(tmp_path / "bit.png", np.full((9, 9), 255, np.uint8), mode="1")
    assert one(tmp_path).unique().tolist() == [255]


def test_a_cmyk_jpeg_becomes_rgb(tmp_path):
    save(tmp_path / "cmyk.jpg", plain((200, 100, 50)), mode="CMYK", quality=95)
    assert one(tmp_path)[:, 4, 4].tolist() == pytest.approx([200, 100, 50], abs=6)


def test_an_exif_rotation_is_undone(tmp_path):
    """Orientation 6: the camera was turned, so the stored left edge is the picture's top."""
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:, :32] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "turned.jpg", stored, exif=exif, quality=95)
    pixels = one(tmp_path, 16)
    assert pixels[:, :4].float().mean() > 245 and pixels[:, -4:].float().mean() < 10


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20)])
def test_the_centre_of_a_picture_that_is_not_square_is_cut_out(tmp_path, height, width):
    picture = plain((255, 0, 0), height, width).copy()
    picture[(height - 20) // 2 : (height + 20) // 2, (width - 20) // 2 : (width + 20) // 2] = (0, 0, 255)
    save(tmp_path / "wide.png", picture)
    assert torch.equal(one(tmp_path, 20), torch.tensor([0, 0, 255]).view(3, 1, 1).expand(3, 20, 20))


def test_a_large_jpeg_decoded_at_a_fraction_of_its_size_looks_as_if_decoded_whole(tmp_path):
    y, x = np.mgrid[0:600, 0:900]
    picture = np.stack([x / 900 * 255, y / 600 * 255, 128 + 100 * np.sin(x / 60)], -1).astype(np.uint8)
    save(tmp_path / "large.jpg", picture, quality=95)
    whole = Image.fromarray(picture[:, 150:750]).resize((48, 48), Image.Resampling.BICUBIC)
    difference = one(tmp_path, 48).permute(1, 2, 0).float() - torch.from_numpy(np.array(whole)).float()
    assert difference.abs().mean() < 3


@pytest.mark.parametrize("extension", ["png", "jpg", "gif", "tif", "bmp", "webp", "ppm"])
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5])
def test_a_cut_picture_is_named(tmp_path, extension, keep):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"broken.{extension}"
    save(path, noise)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw))])
    with pytest.raises(UserError, match=rf"dataset\.path.*broken\.{extension}"):
        one(tmp_path)


def test_a_text_file_that_is_called_a_picture_is_named(tmp_path):
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"dataset\.path.*page\.jpg"):
        one(tmp_path)


def test_a_picture_too_large_for_pillow_is_named(tmp_path, monkeypatch):
    save(tmp_path / "huge.png", plain((1, 2, 3), 40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"dataset\.path.*huge\.png"):
        one(tmp_path)


def test_an_empty_folder_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.path: no picture below"):
        images(path=str(tmp_path))
    with pytest.raises(UserError, match=r"dataset\.path: there is no folder .*nowhere"):
        images(path=str(tmp_path / "nowhere"))


def test_a_size_below_one_pixel_is_refused(tmp_path):
    with pytest.raises(ValueError, match="size=0"):
        images(path=str(tmp_path), size=0)
