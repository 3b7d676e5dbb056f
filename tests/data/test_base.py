"""Datasets from the package, from files in their published layouts, and from damaged ones."""

import gzip
import hashlib
import inspect
import lzma
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from sslcli.cli import conf_dir
from sslcli.config.choices import DatasetChoice
from sslcli.config.instantiate import locate
from sslcli.data.base import Columns, CorruptSample, CorruptSamples, Subset, with_held_out
from sslcli.data.classes import class_counts, unshared
from sslcli.data.corrupt import CorruptReplaced
from sslcli.data.labelled import Labelled
from sslcli.data.published.fashion_mnist import EMBEDDED, fashion_mnist, fashion_mnist_mini
from sslcli.data.ram_cache import RamCache
from sslcli.data.selection import balanced
from sslcli.data.synthetic import synthetic
from sslcli.errors import UserError
from sslcli.types import Field, Spec


def numbers(n, labels=None):
    """A dataset whose column 'x' is the sample's index."""
    return Columns(Spec(x=Field("vector", (), torch.int64)), {"x": torch.arange(n)}, labels)


def samples(dataset):
    return dataset.fetch(torch.arange(len(dataset)))["x"].tolist()


# --- the yaml files -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(Path(conf_dir(), "dataset").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_keys_of_a_yaml_are_the_parameters_of_its_dataset_with_their_defaults(path):
    """But for those of the feed; and ``null`` stands for a parameter that must be given."""
    keys = DatasetChoice.read(OmegaConf.to_container(OmegaConf.load(path))).node
    keys.pop("defaults", None)  # the options of other groups that go with it
    parameters = inspect.signature(locate(keys.pop("_target_"), "dataset")).parameters.values()
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters)
    defaults = {p.name: None if p.default is inspect.Parameter.empty else p.default for p in parameters}
    assert keys == defaults


# --- the embedded file ----------------------------------------------------------------------------


def test_several_labels_a_sample_are_a_column_a_class_of_one_map():
    def split(labels, classes):
        return Columns(Spec(), {"x": torch.zeros(len(labels))}, torch.tensor(labels, dtype=torch.bool), classes)

    train = split([[1, 0], [1, 1], [0, 0]], ("cat", "dog"))
    found = with_held_out(train, split([[1, 0], [0, 1]], ("dog", "eel")), None)
    assert found.classes == found.held_out.classes == ("cat", "dog", "eel")
    assert found.labels.int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found.held_out.labels.int().tolist() == [[0, 1, 0], [0, 0, 1]]
    assert class_counts(found) == {"cat": 2, "dog": 1, "eel": 0}
    assert len(balanced(found.labels, 2)) == 2 and len(with_held_out(train, None, 0.34)) == 2
    with pytest.raises(ValueError, match=r"label=y: these samples have several labels each"):
        Labelled(found, "y")


def test_splits_share_one_map_of_classes_and_what_does_not_meet_is_said_with_counts():
    def split(labels, classes):
        return Columns(Spec(), {"x": torch.zeros(len(labels))}, torch.tensor(labels), classes)

    train = split([0, 1, 1, 2, -1], ("cat", "dog", "eel"))
    test = split([0, 1, 1, 2, -1], ("ant", "cat", "dog"))
    found = with_held_out(train, test, None)
    assert found.classes == found.held_out.classes == ("cat", "dog", "eel", "ant")
    assert found.labels.tolist() == [0, 1, 1, 2, -1] and found.held_out.labels.tolist() == [3, 0, 0, 1, -1]
    assert unshared(found) == [
        "1 only among training samples, 1 in all: eel 1",
        "1 only among held-out samples, 1 in all: ant 1",
    ]
    wrapped = CorruptReplaced(RamCache(Labelled(Subset(train, torch.tensor([1, 0])), "label")))
    assert wrapped.classes == found.classes and class_counts(wrapped) == {"cat": 1, "dog": 1, "eel": 0, "ant": 0}


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


# --- some without a label -------------------------------------------------------------------------

SOME = torch.tensor([-1, 0, 1, -1, 2, -1, 0, 1, 2, 0] * 10)  # 70 of 100 have one


def test_only_samples_that_have_a_label_are_held_out():
    kept = with_held_out(numbers(100, SOME), None, None)
    assert len(kept.held_out) == 14 and (kept.held_out.labels >= 0).all()
    assert sorted(samples(kept) + samples(kept.held_out)) == list(range(100))
    assert kept.labels.tolist() == SOME[samples(kept)].tolist() and (kept.labels < 0).sum() == 30
    nobody = with_held_out(numbers(100, SOME), None, 0)
    assert nobody.held_out is None and len(nobody) == 100


def test_balanced_picks_leave_them_out():
    for count in (9, 1000):
        picked = balanced(SOME, count)
        assert len(picked) == min(count, 70) and (SOME[picked] >= 0).all()
    assert torch.bincount(SOME[balanced(SOME, 9)]).tolist() == [3, 3, 3]
    assert len(balanced(torch.full((5,), -1), 3)) == 0


def test_a_part_in_which_none_has_a_label_has_no_labels():
    assert Subset(numbers(100, SOME), torch.tensor([0, 3])).labels is None
    assert Subset(numbers(100, SOME), torch.tensor([0, 4])).labels.tolist() == [-1, 2]


def test_a_column_of_labels_is_refused_where_some_have_none_and_made_where_only_held_out_ones_have_none():
    with pytest.raises(ValueError, match="30 of 100 samples have no label"):
        Labelled(numbers(100, SOME), "label")
    train = with_held_out(numbers(60, torch.arange(60) % 3), numbers(100, SOME), None)
    held_out = Labelled(train, "label").held_out
    assert torch.equal(held_out.fetch(torch.arange(70))["label"], SOME[SOME >= 0])
    assert samples(held_out) == torch.nonzero(SOME >= 0)[:, 0].tolist()
    hidden = with_held_out(numbers(60, torch.arange(60) % 3), numbers(100), None)
    assert Labelled(hidden, "label").held_out is None


def test_an_unreadable_sample_without_a_label_is_replaced_by_another_without():
    class Partly(Columns):
        def fetch(self, index):
            bad = {row: CorruptSample(str(i), "damaged") for row, i in enumerate(index.tolist()) if i < 10}
            if bad:
                raise CorruptSamples(bad)
            return super().fetch(index)

    whole = numbers(100, SOME)
    mended = CorruptReplaced(Partly(whole.spec, whole.columns, SOME))
    chosen = mended.fetch(torch.arange(100))["x"]
    assert torch.equal(SOME[chosen], SOME) and chosen.min() == 10


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
