"""Tables of pictures by their documented layouts, written by pyarrow, against the bytes that were put into them."""

import itertools
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.oddities import encoded, smooth
from support.settled import cached, settle

from sslcli.data.base import CorruptSamples
from sslcli.data.classes import class_name, unshared
from sslcli.data.pictures.parquet import parquet
from sslcli.data.pictures.table_index import find_places
from sslcli.data.split_names import split_in
from sslcli.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "sslcli"


def pixels(k, size=9):
    return smooth(size, size, k)


def pictures(numbers):
    return [encoded(pixels(k), "PNG") for k in numbers]


HF = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# What Hugging Face's datasets 5 asks of parquet's writer for columns of pictures.
PLAIN = {
    "compression": {"image.bytes": "none"},
    "use_dictionary": ["label"],
    "column_encoding": {"image.bytes": "PLAIN"},
}


def table(contents, label=None, kind=HF, **columns):
    """A table as ``datasets`` lays it out, or with another type of picture."""
    struct = pa.types.is_struct(kind)
    values = [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(contents)] if struct else contents
    columns = {"image": pa.array(values, kind), **columns}
    if label is not None:
        columns["label"] = pa.array(label)
    features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table(columns).replace_schema_metadata(meta)


def write(path, contents, label=None, kind=HF, options=PLAIN, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(contents, label, kind, **columns), path, **options)
    return path


def write_arrow(path, contents, label=None, compression=None, as_file=False, rows=3):
    """What ``save_to_disk`` writes: arrow's format for streams, in batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = table(contents, label)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_file if as_file else pa.ipc.new_stream
    with new(str(path), whole.schema, options=options) as sink:
        sink.write_table(whole, max_chunksize=rows)
    return path


def shown(path, **options):
    return parquet(path=str(path), size=9, **{"holdout": 0, **options})


def everything(dataset):
    return dataset.fetch(torch.arange(len(dataset)))["image"].permute(0, 2, 3, 1).numpy()


def rows_of(dataset):
    return dataset.dataset.encoded


def copies(cache):
    return sorted(path.name for path in (cache / "tables").glob("*"))


# --- where the bytes are ----------------------------------------------------------------------------

IN_PLACE = [
    {}, {"row_group_size": 4}, {"data_page_version": "2.0"}, {"data_page_size": 100}, {"write_page_index": True},
]  # fmt: skip


@pytest.mark.parametrize("options", IN_PLACE, ids=str)
@pytest.mark.parametrize("kind", [HF, pa.binary(), pa.large_binary()], ids=["struct", "binary", "large"])
def test_a_table_that_holds_the_pictures_as_they_are_is_read_in_place(tmp_path, cache, kind, options):
    plain = PLAIN if kind is HF else {"compression": "none", "use_dictionary": False}
    path = write(tmp_path / "0.parquet", pictures(range(11)), [k % 3 for k in range(11)], kind, {**plain, **options})
    dataset = shown(path)
    assert np.array_equal(everything(dataset), np.stack([pixels(k) for k in range(11)]))
    assert dataset.labels.tolist() == [k % 3 for k in range(11)]
    raw, rows = path.read_bytes(), rows_of(dataset)
    assert [raw[s : s + n] for s, n in zip(rows.start, rows.size)] == pictures(range(11))
    assert copies(cache) == []


# A dictionary holds the second ones no second time; and what hardly compresses may lie in a compressed page as it is.
TWICE = [3, 4, 5, 6, 3, 4, 5, 6]
UNPACKED = [
    {"compression": "snappy"}, {"compression": "zstd", "row_group_size": 4}, {"compression": "gzip"},
    {"compression": "none", "use_dictionary": True}, {"compression": "snappy", "data_page_version": "2.0"},
]  # fmt: skip


@pytest.mark.parametrize("options", UNPACKED, ids=str)
def test_a_compressed_table_is_unpacked_once(tmp_path, cache, options, monkeypatch, capfd):
    path = settle(write(tmp_path / "0.parquet", pictures(TWICE), [k % 3 for k in TWICE], options=options))
    dataset = shown(path)
    assert np.array_equal(everything(dataset), np.stack([pixels(k) for k in TWICE]))
    (copy,) = (cache / "tables").iterdir()
    assert copy.read_bytes() == b"".join(pictures(TWICE)) and "0.pictures" in copy.name
    assert str(cache / "tables") in capfd.readouterr().err
    unread(monkeypatch, cache, path)
    again = shown(path)
    assert np.array_equal(everything(again), everything(dataset)) and again.fingerprint() == dataset.fingerprint()


@pytest.mark.parametrize("as_file", [False, True], ids=["stream", "file"])
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_both_arrow_formats_are_read_in_place_unless_compressed(tmp_path, cache, compression, as_file):
    path = write_arrow(tmp_path / "0.arrow", pictures(range(11)), [k % 3 for k in range(11)], compression, as_file)
    dataset = shown(path)
    assert np.array_equal(everything(dataset), np.stack([pixels(k) for k in range(11)]))
    assert dataset.labels.tolist() == [k % 3 for k in range(11)]
    assert len(copies(cache)) == (compression is not None)


def test_places_are_those_of_equal_bytes_whatever_lies_between(tmp_path):
    generator = np.random.default_rng(0)
    for trial in range(50):
        parts = [generator.integers(0, 3, generator.integers(0, 12), dtype=np.uint8).tobytes() for _ in range(8)]
        between = [generator.integers(0, 3, generator.integers(0, 5), dtype=np.uint8).tobytes() for _ in range(9)]
        raw = b"".join(itertools.chain(*zip(between, parts))) + between[-1] + b"."
        (tmp_path / "x").write_bytes(raw)
        places = find_places(tmp_path / "x", parts)
        assert places is not None and [raw[s : s + n] for s, n in places] == parts, trial
        assert find_places(tmp_path / "x", [*parts, b"none"]) is None


def test_rows_without_a_picture_are_bad_samples_with_their_place(tmp_path):
    contents = pictures(range(6))
    contents[2], contents[4] = None, b""
    write(tmp_path / "0.parquet", pictures(range(3)))
    path = write(tmp_path / "1.parquet", contents)
    dataset = shown(tmp_path)
    with pytest.raises(CorruptSamples) as found:
        everything(dataset)
    assert {row: (bad.where, bad.reason) for row, bad in found.value.rows.items()} == {
        5: (f"{path}, row 2", "no bytes in this row"),
        7: (f"{path}, row 4", "no bytes in this row"),
    }
    whole = pa.array([None, {"bytes": contents[0], "path": None}], HF)  # not even a struct
    pq.write_table(pa.table({"image": whole}), tmp_path / "2.parquet")
    with pytest.raises(CorruptSamples) as found:
        everything(shown(tmp_path / "2.parquet"))
    assert list(found.value.rows) == [0]


def test_a_damaged_picture_is_a_bad_sample(tmp_path):
    contents = pictures(range(4))
    contents[1] = contents[1][:60]
    with pytest.raises(CorruptSamples) as found:
        everything(shown(write(tmp_path / "0.parquet", contents)))
    assert list(found.value.rows) == [1]


def test_a_dataset_travels_to_a_spawned_worker_and_needs_no_pyarrow_there(tmp_path, monkeypatch):
    dataset = shown(write(tmp_path / "0.parquet", pictures(range(4))))
    raw = pickle.dumps(dataset)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert np.array_equal(everything(pickle.loads(raw)), everything(dataset))


def test_crops_are_cut_by_workers_when_asked(tmp_path):
    class Crops:
        sizes = ((4, 3),)

        def windows(self, row, height, width):
            return [(2, 1, 4, 3)]

    dataset = shown(write(tmp_path / "0.parquet", pictures([5])), crop="worker")
    cut = dataset.fetch_crops(torch.tensor([0]), Crops())["image/0"][0]
    assert dataset.cuts_crops and np.array_equal(cut.permute(1, 2, 0), pixels(5)[2:6, 1:4])


# --- what is remembered -----------------------------------------------------------------------------


def unread(monkeypatch, cache, path):
    """From here on no table may be opened."""

    def opened(*_):
        raise AssertionError(f"opened; cached: {cached(cache)}, now: {path.stat()}")

    monkeypatch.setattr("sslcli.data.pictures.table_index.Table", opened)


def test_a_table_is_read_through_once_and_again_when_it_or_its_copy_is_another(tmp_path, cache, monkeypatch):
    plain, packed = write(tmp_path / "0.parquet", pictures(range(3))), tmp_path / "1.parquet"
    write(packed, pictures(TWICE), options={"compression": "snappy"})
    settle(tmp_path)
    first = shown(tmp_path)
    with monkeypatch.context() as patch:
        unread(patch, cache, plain)
        assert np.array_equal(everything(shown(tmp_path)), everything(first))
        with pytest.raises(AssertionError, match="opened"):
            shown(tmp_path, label="label")
    (copy,) = (cache / "tables").iterdir()
    for damage in (copy.unlink, lambda: os.truncate(copy, 10), lambda: copy.write_bytes(bytes(copy.stat().st_size))):
        damage()
        assert np.array_equal(everything(shown(tmp_path)), everything(first))
    write(plain, pictures([8]))
    assert np.array_equal(everything(shown(tmp_path)), np.stack([pixels(k) for k in (8, *TWICE)]))


def test_the_fingerprint_follows_the_rows_and_not_the_place(tmp_path, cache):
    prints = []
    for folder, numbers in (("a", TWICE), ("b", TWICE), ("c", [*TWICE, 0]), ("d", TWICE)):
        options = {"compression": "snappy"} if folder == "d" else PLAIN
        prints.append(shown(write(tmp_path / folder / "0.parquet", pictures(numbers), options=options)).fingerprint())
    moved = shown(tmp_path / "d", cache_dir=str(tmp_path / "copies"))
    assert prints[0] == prints[1] != prints[2] and moved.fingerprint() == prints[3]
    assert len(list((tmp_path / "copies").iterdir())) == 1


def test_where_a_copy_cannot_be_kept_the_message_names_the_key(tmp_path):
    path = write(tmp_path / "0.parquet", pictures(TWICE), options={"compression": "snappy"})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"dataset\.cache_dir: .*0\.parquet are compressed") as caught:
        shown(path, cache_dir=str(tmp_path / "file" / "x"))
    assert "\n" not in str(caught.value)


# --- columns and classes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "labels", "classes"),
    [
        (pa.array([1_234_567, 0, 1_234_567, 5]), [2, 0, 2, 1], ("0", "5", "1234567")),
        (pa.array([1, None, -1, 0]), [1, -1, -1, 0], ("0", "1")),
        (pa.array([-1, -1, -1, None]), None, ()),
        (pa.array(["dog", "cat", None, "dog"]), [1, 0, -1, 1], ("cat", "dog")),
        (pa.array(["dog", "cat", None, "dog"]).dictionary_encode(), [1, 0, -1, 1], ("cat", "dog")),
        (pa.array([True, False, True, None]), [1, 0, 1, -1], ("false", "true")),
    ],
    ids=["ints", "some", "none", "names", "dictionary", "bools"],
)
def test_classes_are_names_and_numbers_are_names_too(tmp_path, given, labels, classes):
    path = write(tmp_path / "0.parquet", pictures(range(4)), **{"class": given}, options={})
    found = shown(path, label="class")
    assert found.labels is labels is None or found.labels.tolist() == labels
    assert found.classes == classes
    assert shown(path).labels is None


def test_names_of_numbers_are_read_from_the_file_and_are_one_map_for_all_its_splits(tmp_path):
    write(tmp_path / "train.parquet", pictures(range(4)), [2, 0, 2, -1])
    write(tmp_path / "test.parquet", pictures(range(2)), [1, 7])  # the file names three classes only
    train = shown(tmp_path, holdout=None)
    assert train.classes == train.held_out.classes == ("a", "b", "c", "7")
    assert train.labels.tolist() == [2, 0, 2, -1] and train.held_out.labels.tolist() == [1, 3]
    assert [class_name(train.classes, label) for label in (2, -1)] == ["c", ""]
    assert unshared(train) == [
        "2 only among training samples, 3 in all: a 1, c 2",
        "2 only among held-out samples, 2 in all: b 1, 7 1",
    ]


def test_the_column_of_pictures_is_found_or_named(tmp_path):
    one = write(tmp_path / "1.parquet", pictures([1]), kind=pa.binary(), options={}, text=pa.array(["x"]))
    two = tmp_path / "2.parquet"
    pq.write_table(pa.table({"img": pictures([1]), "mask": pictures([2]), "id": [7]}), two)
    both = tmp_path / "3.parquet"
    pq.write_table(pa.table({"mask": pictures([2]), "image": pictures([1])}), both)
    for path, column, number in ((one, None, 1), (two, "img", 1), (two, "mask", 2), (both, None, 1), (both, "mask", 2)):
        assert np.array_equal(everything(shown(path, column=column))[0], pixels(number))
    for path, keys, said in (
        (two, {}, r"dataset\.column: .*2\.parquet has several .*: img, mask"),
        (two, {"column": "imag"}, r"dataset\.column: .* no column 'imag'. Did you mean 'img'"),
        (two, {"column": "id"}, r"dataset\.column: 'id' of .* is int64"),
        (one, {"label": "txt"}, r"dataset\.label: .* no column 'txt'. Did you mean 'text'"),
        (one, {"label": "image"}, r"dataset\.label: column 'image'"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            shown(path, **keys)
        assert "\n" not in str(caught.value)
    pq.write_table(pa.table({"text": ["x"], "tags": [["a"]]}), two)
    with pytest.raises(UserError, match=r"dataset\.column: .* no column of bytes. There are: text, tags"):
        shown(two)
    with pytest.raises(UserError, match=r"dataset\.label: column 'tags' of .* is list<"):
        shown(write(one, pictures([1]), tags=pa.array([["a"]]), options={}), label="tags")


def test_a_set_that_only_names_files_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.path: the 3 rows of .* hold no pictures.*dataset=images"):
        shown(write(tmp_path / "0.parquet", [None, None, None]))


# --- splits -----------------------------------------------------------------------------------------


def numbers(dataset):
    """Which of the first 40 pictures a dataset holds."""
    known = {pixels(k).tobytes(): k for k in range(40)}
    return [known[picture.tobytes()] for picture in everything(dataset)]


@pytest.mark.parametrize("name", ["tmp_data", "cache-images", "tmpl_cats"])
def test_a_table_is_read_when_it_is_named_whatever_its_name(tmp_path, name):
    path = write(tmp_path / f"{name}.parquet", pictures(range(3)))
    assert numbers(shown(path)) == numbers(shown(tmp_path)) == numbers(shown(tmp_path / "*.parquet")) == [0, 1, 2]
    left = write_arrow(tmp_path / "cache-0123456789abcdef.arrow", pictures([5]))  # what a map of ``datasets`` leaves
    assert numbers(shown(tmp_path)) == [0, 1, 2] and numbers(shown(left)) == [5]
    path.unlink()
    with pytest.raises(UserError, match=r"dataset\.path: .* holds cache-0123456789abcdef.arrow and no other table"):
        shown(tmp_path)


@pytest.mark.parametrize("layout", ["hub", "hub, a folder a split", "save_to_disk"])
def test_splits_are_told_by_the_names_that_datasets_gives(tmp_path, layout):
    names = {
        "hub": "data/{}-0000{}-of-00002.parquet",
        "hub, a folder a split": "default/{}/000{}.parquet",
        "save_to_disk": "{}/data-0000{}-of-00002.arrow",
    }[layout]
    make = write_arrow if layout == "save_to_disk" else write
    for k, split in enumerate(("train", "test", "validation")):
        for part in range(2):
            first = 10 * k + 4 * part
            path = tmp_path / names.format(split, part)
            make(path, pictures(range(first, first + 4)), [n % 2 for n in range(first, first + 4)])
            (path.parent / "cache-1234.arrow").write_bytes(b"")  # what datasets leaves beside them
    (tmp_path / "dataset_dict.json").write_text("{}")
    dataset = shown(tmp_path, holdout=None)
    assert numbers(dataset) == list(range(8)) and numbers(dataset.held_out) == list(range(10, 18))
    assert dataset.held_out.labels.tolist() == [n % 2 for n in range(10, 18)]
    part = shown(tmp_path, holdout=0.25)
    assert sorted(numbers(part) + numbers(part.held_out)) == list(range(8)) and len(part.held_out) == 2


def test_a_test_split_without_labels_leaves_its_place_to_validation(tmp_path):
    write(tmp_path / "train-0.parquet", pictures(range(4)), [0, 1, 0, 1])
    write(tmp_path / "test-0.parquet", pictures(range(10, 14)), [-1] * 4)
    assert numbers(shown(tmp_path, holdout=None).held_out) == [10, 11, 12, 13]  # for the held-out loss
    write(tmp_path / "validation-0.parquet", pictures(range(20, 22)), [1, 0])
    dataset = shown(tmp_path, holdout=None)
    assert numbers(dataset.held_out) == [20, 21] and numbers(dataset) == [0, 1, 2, 3]


def test_names_of_classes_are_numbered_alike_in_both_splits(tmp_path):
    write(tmp_path / "train-0.parquet", pictures(range(4)), ["b", "d", "a", "d"], options={})
    write(tmp_path / "test-0.parquet", pictures(range(10, 12)), ["d", "c"], options={})
    dataset = shown(tmp_path, holdout=None)
    assert dataset.labels.tolist() == [1, 3, 0, 3] and dataset.held_out.labels.tolist() == [3, 2]


def test_what_is_of_no_split_is_trained_on_and_a_test_split_alone_as_well(tmp_path):
    write(tmp_path / "unlabeled-0.parquet", pictures([0, 1]), [-1, -1])
    write(tmp_path / "train-0.parquet", pictures([2]), [5])
    write(tmp_path / "val-0.parquet", pictures([3]), [5])
    dataset = shown(tmp_path, holdout=None)
    assert (
        numbers(dataset) == [2, 0, 1]
        and dataset.labels.tolist() == [3, -1, -1]
        and dataset.classes == ("a", "b", "c", "5")
    )
    assert numbers(dataset.held_out) == [3]
    assert numbers(shown(tmp_path / "val-0.parquet")) == [3]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"), ("x/test/0000.parquet", "test"), ("dev.parquet", "validation"),
        ("test/train_0.parquet", "train"), ("latest/contest.parquet", "train"), ("cifar_TEST.parquet", "test"),
        ("val/data-0.arrow", "validation"), ("0.parquet", "train"),
    ],
)  # fmt: skip
def test_a_split_is_a_word_of_the_files_name_or_else_of_its_folders(name, split):
    assert (split_in(Path(name)) or "train") == split


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["0.parquet", "0.arrow"])
@pytest.mark.parametrize("how", ["empty", "web page", "half", "middle", "missing"])
def test_a_table_that_cannot_be_read_is_named(tmp_path, name, how):
    make = write_arrow if name.endswith("arrow") else write
    path = make(tmp_path / name, pictures(range(50)), **({} if name.endswith("arrow") else {"options": {}}))
    raw = path.read_bytes()
    content = {
        "empty": b"", "web page": b"<html>404</html>" * 9, "half": raw[: len(raw) // 2],
        "middle": raw[:400] + bytes(len(raw) - 800) + raw[-400:],
    }.get(how)  # fmt: skip
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=rf"dataset\.path: .*{name}") as caught:
        shown(path)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_and_a_url_are_told(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.path: there is no \.parquet file below"):
        shown(tmp_path)
    with pytest.raises(UserError, match=r"dataset\.path: .*hf download"):
        shown("hf://datasets/cifar10")


def test_without_pyarrow_the_message_names_the_extra(tmp_path, monkeypatch):
    path = write(tmp_path / "0.parquet", pictures([1]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'sslcli\[parquet\]'"):
        shown(path)
