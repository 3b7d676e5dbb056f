"""By its fingerprint a run knows that its data have changed, also if there are as many samples as before."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data.base import Columns, CorruptSample, CorruptSamples, Dataset, Subset, with_held_out
from sslcli.data.checked import Checked
from sslcli.data.corrupt import CorruptReplaced
from sslcli.data.fingerprints import of_files
from sslcli.types import Field, Spec

VECTOR = Spec(vector=Field("vector", (4,), torch.float32))
NUMBERS = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


def changed(place):
    numbers = NUMBERS.clone()
    numbers[place] += 1
    return numbers


def test_an_array_in_memory_is_known_by_its_content():
    first = Columns(VECTOR, {"vector": NUMBERS}).fingerprint()
    assert first.startswith("10 samples, content ")
    assert Columns(VECTOR, {"vector": NUMBERS.clone()}).fingerprint() == first
    others = [
        Columns(VECTOR, {"vector": changed((9, 3))}),
        Columns(VECTOR, {"vector": NUMBERS.flip(0)}),
        Columns(Spec(vector=Field("vector", (4,), torch.float64)), {"vector": NUMBERS.double()}),
        Columns(VECTOR, {"vector": NUMBERS}, torch.arange(10)),
    ]
    assert len({first, *(other.fingerprint() for other in others)}) == 5


def test_the_digest_is_that_of_hashlib():
    """Of the name, dtype and shape of every piece of 512 samples with their length, and of its bytes."""
    numbers = torch.arange(600 * 4, dtype=torch.float32).view(600, 4)
    digest = hashlib.blake2b(digest_size=8)
    for start, count in ((0, 512), (512, 88)):
        about = f"vector torch.float32 [{count}, 4]".encode()
        digest.update(f"{len(about)} ".encode() + about + numbers[start : start + count].numpy().tobytes())
    assert Columns(VECTOR, {"vector": numbers}).fingerprint() == f"600 samples, content {digest.hexdigest()}"


class Slow(Dataset):
    """Samples that are not in memory; the third cannot be read."""

    spec = VECTOR

    def __init__(self, numbers):
        self.numbers, self.read = numbers, 0

    def __len__(self):
        return len(self.numbers)

    def fetch(self, index):
        self.read += len(index)
        if (index == 3).any():
            raise CorruptSamples({int((index == 3).nonzero()): CorruptSample("the third", "cut")})
        return {"vector": self.numbers[index]}


def test_of_what_is_not_in_memory_some_samples_are_read_and_only_once():
    numbers = torch.randn(3000, 4)
    slow = Slow(numbers)
    wrapped = CorruptReplaced(Checked(slow))
    assert wrapped.fingerprint() == wrapped.fingerprint() and slow.read == 64
    assert wrapped.fingerprint().startswith("3000 samples, content of 64 ")
    assert Slow(numbers + 1).fingerprint() != wrapped.fingerprint() == Slow(numbers).fingerprint()
    assert "content " in Slow(NUMBERS).fingerprint()  # also with a sample that cannot be read


def test_the_content_of_a_large_array_is_sampled():
    numbers = torch.randn(100, 2)
    large = Columns(VECTOR, {"vector": numbers})
    assert large.fingerprint(8 * 100).startswith("100 samples, content ")
    quick = large.fingerprint(8 * 100 - 1)
    assert quick == large.fingerprint(0) and quick.startswith("100 samples, content of 64 ")
    others = (numbers.index_fill(0, torch.tensor([k]), 7.0) for k in range(100))
    assert sum(Columns(VECTOR, {"vector": other}).fingerprint(0) != quick for other in others) == 64
    assert Columns(VECTOR, {"vector": numbers[:64]}).fingerprint(0).startswith("64 samples, content ")


def test_a_part_knows_the_whole_and_old_texts_stay():
    part = with_held_out(Columns(VECTOR, {"vector": NUMBERS}), None, 0.2)
    assert part.fingerprint() == f"8 of {Columns(VECTOR, {'vector': NUMBERS}).fingerprint()}"
    assert CorruptReplaced(part).old_fingerprint() == "8 of 10 samples"
    assert isinstance(part, Subset)


@pytest.mark.slow
def test_small_files_are_known_by_content_and_large_ones_by_sizes_and_drawn_pieces(tmp_path):
    paths = [tmp_path / f"{k}" for k in range(200)]
    for path in paths:
        path.write_bytes(b"12345")
    whole, drawn = of_files(paths), of_files(paths, 999)
    assert whole.startswith("names and content ") and drawn.startswith("names, sizes and 64 pieces ")
    os.utime(paths[0], ns=(0, 0))
    assert (of_files(paths), of_files(paths, 999)) == (whole, drawn)
    found = 0
    for path in paths:
        path.write_bytes(b"12346")
        found += of_files(paths, 999) != drawn
        path.write_bytes(b"12345")
    assert 45 <= found <= 64  # 64 draws with repetition hit about 55 of 200 files
    paths[7].write_bytes(b"12346")
    assert of_files(paths) != whole
    paths[7].write_bytes(b"12345")
    paths[1].write_bytes(b"123456")
    assert of_files(paths, 999) != drawn
    paths[1].unlink()
    assert of_files(paths, 999) != drawn


def test_pieces_of_a_large_file_lie_anywhere_in_it(tmp_path):
    path = tmp_path / "large"
    content = np.zeros(2**20, np.uint8)
    content.tofile(path)
    before, seen = of_files([path], 0), 0
    for place in range(0, 2**20, 2**16):
        content[place] = 1
        content.tofile(path)
        seen += of_files([path], 0) != before
        content[place] = 0
    assert seen > 12  # 64 pieces of a sixteenth of the file leave out 2 % of it


TRAIN = ("dataset=images", "dataset.path=data", "dataset.size=8", "encoder.width=2", "train.steps=2",
         "train.batch_size=4", "probe=none", "log.report=false", "device=cpu", "run_dir=run")  # fmt: skip


def test_a_run_does_not_go_on_with_other_pictures_of_the_same_names(run):
    Path("data").mkdir()
    for k in range(6):
        Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)).save(f"data/{k}.bmp")
    code, _, err = run(*TRAIN)
    assert code == 0, err
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save("data/3.bmp")  # of the same size
    code, _, err = run(*TRAIN, "train.steps=4")
    assert code == 2 and "was trained on" in err and "6 pictures, names" in err and "resume=never" in err
