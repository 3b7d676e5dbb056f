"""Samples that cannot be read: replaced alike everywhere, counted, listed, and too many of them end a run."""

import numpy as np
import pytest
import torch

from sslcli.data.base import CorruptSample, CorruptSamples, Dataset, Subset
from sslcli.data.corrupt import CorruptReplaced
from sslcli.data.labelled import Labelled
from sslcli.data.loader import Loader
from sslcli.data.ram_cache import RamCache
from sslcli.errors import UserError
from sslcli.run_dir.bad_samples import BadSampleList
from sslcli.types import Field, Spec


class Pictures(Dataset):
    """1 x 1 pictures of their own index, of which some cannot be read; counts how often each is read."""

    def __init__(self, count, bad=(), labels=None):
        self.spec = Spec(image=Field("image", (1, 1, 1), torch.uint8))
        self.count, self.unreadable = count, set(bad)
        self.labels = labels
        self.reads = torch.zeros(count, dtype=torch.int64).share_memory_()

    def __len__(self):
        return self.count

    def fetch(self, index):
        rows = {
            row: CorruptSample(f"file {i}", "damaged") for row, i in enumerate(index.tolist()) if i in self.unreadable
        }
        for i in index.tolist():
            self.reads[i] += 1
        if rows:
            raise CorruptSamples(rows)
        return {"image": index.to(torch.uint8)[:, None, None, None]}


def fetched(dataset, index):
    return dataset.fetch(torch.as_tensor(index))["image"].flatten().tolist()


def test_a_bad_sample_is_replaced_by_the_same_readable_one_every_time():
    first, second = (CorruptReplaced(Pictures(50, bad={3, 7, 9})) for _ in range(2))
    alone = fetched(first, [3])
    assert alone[0] not in {3, 7, 9}
    assert fetched(second, [1, 7, 3, 3, 9]) == [1, *fetched(first, [7]), *alone, *alone, *fetched(first, [9])]


def test_what_was_met_is_told_for_each_request():
    dataset = CorruptReplaced(Pictures(50, bad={3, 7}))
    fetched(dataset, [1, 3])
    assert [bad.where for bad in dataset.last_corrupt] == ["file 3"]
    fetched(dataset, [1, 2])
    assert dataset.last_corrupt == []
    fetched(dataset, [7, 3])  # 3 is known to be bad and is not read again
    assert sorted(bad.where for bad in dataset.last_corrupt) == ["file 3", "file 7"]
    assert sorted(dataset.known_corrupt) == [3, 7] and dataset.dataset.reads[3] == 1


def test_a_replacement_is_of_the_same_class():
    labels = torch.arange(60) % 4
    dataset = CorruptReplaced(Labelled(Pictures(60, bad=set(range(0, 40, 3)), labels=labels), "label"))
    columns = dataset.fetch(torch.arange(60))
    assert torch.equal(columns["label"], labels)
    assert torch.equal(columns["image"].flatten() % 4, labels)


def test_where_a_whole_class_is_bad_a_replacement_is_of_another():
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    mended = CorruptReplaced(Pictures(6, bad=[0, 1], labels=labels))
    found = mended.fetch(torch.tensor([0, 1, 2]))["image"][:, 0, 0, 0]
    assert set(found.tolist()) <= {2, 3, 4, 5} and len(mended.corrupt_places) == 2


def test_a_replacement_of_a_training_sample_is_a_training_sample():
    pictures = Pictures(40, bad={1, 5, 11})
    train = Subset(pictures, torch.arange(1, 40, 2))
    assert all(i % 2 for i in fetched(CorruptReplaced(train), range(20)))


def test_where_everything_is_bad_it_says_so():
    with pytest.raises(UserError, match=r"dataset\.path: too many .* file 2 \(damaged\)"):
        fetched(CorruptReplaced(Pictures(5, bad=range(5))), [2])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_the_same_batches_with_any_number_of_workers_and_tells_of_the_bad(workers):
    def take(workers, start, count):
        told = []
        loader = Loader(
            Pictures(60, bad={0, 10, 20, 30}), batch_size=6, accumulate=2, seed=0, workers=workers, on_bad=told.extend
        )
        stream = loader.batches(start)
        return [torch.cat([micro["image"] for micro in next(stream)]).flatten().tolist() for _ in range(count)], told

    undisturbed, told = take(0, 0, 20)
    assert {bad.where for bad in told} == {"file 0", "file 10", "file 20", "file 30"}
    assert not {0, 10, 20, 30} & {i for batch in undisturbed for i in batch}
    assert take(workers, 7, 13)[0] == undisturbed[7:]


# --- the list ---------------------------------------------------------------------------------------


def listed(tmp_path, warned=None, num_samples=1000, max_bad=None):
    return BadSampleList(tmp_path / "bad.txt", num_samples, max_bad, (warned if warned is not None else []).append)


def some(*numbers):
    return [CorruptSample(f"folder/{n}.jpg", "cut short") for n in numbers]


def test_each_bad_sample_is_listed_once_and_the_first_is_told(tmp_path):
    warned = []
    bad = listed(tmp_path, warned)
    bad.add(some(4, 4))
    bad.add([])
    bad.add(some(4, 9))
    assert (tmp_path / "bad.txt").read_text() == "folder/4.jpg\tcut short\nfolder/9.jpg\tcut short\n"
    assert len(warned) == 1 and "folder/4.jpg: cut short" in warned[0] and "bad.txt" in warned[0]


def test_a_run_that_goes_on_lists_nothing_twice_and_counts_what_was_before(tmp_path):
    listed(tmp_path).add(some(*range(8)))
    again = listed(tmp_path)
    again.add(some(3, 8))
    assert len((tmp_path / "bad.txt").read_text().splitlines()) == 9
    with pytest.raises(UserError, match="11 of 1,000"):
        again.add(some(9, 10))


def test_nothing_is_written_where_nothing_is_bad(tmp_path):
    listed(tmp_path).add([])
    assert not (tmp_path / "bad.txt").exists()


@pytest.mark.parametrize(
    ("num_samples", "max_bad", "allowed"), [(1000, None, 10), (40, None, 5), (40, 0.05, 2), (40, 0.0, 0), (3, 1.0, 3)]
)
def test_past_the_limit_the_run_stops_and_names_count_first_and_file(tmp_path, num_samples, max_bad, allowed):
    bad = listed(tmp_path, num_samples=num_samples, max_bad=max_bad)
    bad.add(some(*range(allowed)))
    with pytest.raises(UserError, match=rf"dataset\.max_bad: {allowed + 1} of .*folder/0\.jpg: cut short.*bad\.txt"):
        bad.add(some(allowed))


def test_odd_names_stay_one_line_each(tmp_path):
    bad = listed(tmp_path)
    name = "a\nb\t\udcff.png"  # a byte that is not UTF-8, as os.fsdecode gives it
    bad.add([CorruptSample(name, "empty")])
    assert (tmp_path / "bad.txt").read_bytes() == b"a\\nb\\t\\udcff.png\tempty\n"
    bad.add([CorruptSample(name, "empty")])
    listed(tmp_path).add([CorruptSample(name, "empty")])
    assert len((tmp_path / "bad.txt").read_bytes().splitlines()) == 1


# --- kept in memory -----------------------------------------------------------------------------------


def test_a_cached_sample_is_read_once_and_stays_the_same():
    pictures = Pictures(20)
    cached = RamCache(pictures)
    assert fetched(cached, [3, 5, 3]) == [3, 5, 3] and fetched(cached, [5, 6]) == [5, 6]
    assert fetched(cached, list(range(20))) == list(range(20))
    assert pictures.reads[5] == 1 and pictures.reads[6] == 1


def test_a_bad_sample_is_told_by_its_row_and_never_kept():
    cached = RamCache(Pictures(20, bad={4}))
    fetched(cached, [1, 2])
    for _ in range(2):
        with pytest.raises(CorruptSamples) as caught:
            fetched(cached, [1, 9, 4, 2])
        assert list(caught.value.rows) == [2]
    assert fetched(CorruptReplaced(cached), [1, 9, 4, 2])[:2] == [1, 9]


def test_forked_workers_share_what_one_of_them_has_read():
    pictures = Pictures(64)
    loader = Loader(RamCache(pictures), batch_size=16, accumulate=1, seed=0, workers=2)
    stream = loader.batches(0)
    seen = [next(stream)[0]["image"] for _ in range(40)]
    assert torch.equal(torch.cat(seen[:4]).flatten().sort().values, torch.arange(64, dtype=torch.uint8))
    assert pictures.reads.max() <= 2  # both may read the same sample in the same instant, once


def test_the_cache_gives_the_same_pixels_as_reading():
    generator = np.random.default_rng(0)
    plain, cached = Pictures(30), RamCache(Pictures(30))
    for _ in range(20):
        index = torch.from_numpy(generator.integers(0, 30, 7))
        assert torch.equal(plain.fetch(index)["image"], cached.fetch(index)["image"])
