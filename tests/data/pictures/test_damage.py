"""Whether a picture is damaged is one rule: the same files are bad whatever they lie in and however they are cut."""

import io
import struct
import tarfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.oddities import encoded, smooth

from sslcli.data.base import CorruptSamples
from sslcli.data.pictures.decode import decode
from sslcli.data.pictures.images import images
from sslcli.data.pictures.opening import BadPicture
from sslcli.data.pictures.pack import pack
from sslcli.data.pictures.parquet import parquet
from sslcli.data.pictures.shards import shards


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunk(png, data, *, after_pixels=False):
    at = len(png) - 12 if after_pixels else 33  # before IEND, or after IHDR
    return png[:at] + data + png[at:]


NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
JPEG, PNG = encoded(NOISE, "JPEG"), encoded(smooth(120, 160), "PNG")
LARGE = zlib.compress(bytes(3_000_000))
WRONG = chunk(b"tEXt", b"Comment\0words")[:-4] + b"\0\0\0\0"
GOOD = {
    "jpeg": JPEG,
    "stray bytes": JPEG[:-2] + bytes(5) + JPEG[-2:],
    "png": PNG,
    "large text": with_chunk(PNG, chunk(b"zTXt", b"Comment\0\0" + LARGE)),
    "large text at the end": with_chunk(PNG, chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE), after_pixels=True),
    "large profile": with_chunk(PNG, chunk(b"iCCP", b"profile\0\0" + LARGE)),
    "damaged text": with_chunk(PNG, WRONG),
    "damaged text at the end": with_chunk(PNG, WRONG, after_pixels=True),
}
BAD = {
    "cut": JPEG[: len(JPEG) // 2],
    "ends in zeros": JPEG[: len(JPEG) // 2] + bytes(len(JPEG) // 2),
    "without its middle": JPEG[: len(JPEG) // 3] + JPEG[2 * len(JPEG) // 3 :],
    "without its last third": JPEG[: 2 * len(JPEG) // 3] + b"\xff\xd9",
    "png cut": PNG[: len(PNG) // 2],
    "png with damaged pixels": PNG[: len(PNG) // 2] + bytes([PNG[len(PNG) // 2] ^ 1]) + PNG[len(PNG) // 2 + 1 :],
    "empty": b"",
    "text": b"<html>404</html>",
}
FILES = {**GOOD, **BAD}


@pytest.mark.parametrize("name", [name for name in GOOD if "text" in name or "profile" in name])
def test_what_lies_beside_the_pixels_of_a_png_is_passed_over(name):
    assert np.array_equal(decode(GOOD[name]).permute(1, 2, 0).numpy(), smooth(120, 160))


def test_transparency_and_orientation_of_a_png_stay_where_texts_are_passed_over():
    gray = encoded(np.array([[0, 90]], np.uint8), "PNG", transparency=0)
    assert decode(with_chunk(gray, WRONG))[0].tolist() == [[255, 90]]
    turned = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0")  # upside down
    assert decode(with_chunk(with_chunk(gray, turned), WRONG))[0].tolist() == [[90, 255]]


@pytest.mark.parametrize("size", [None, 120, 60, 30, 15, 7])
def test_a_picture_is_bad_at_every_size(size):
    found = set()
    for name, content in FILES.items():
        try:
            decode(content, size)
        except BadPicture:
            found.add(name)
    assert found == set(BAD)


def written(folder, place):
    """The files in a folder, named by a list, as the members of a tar or the rows of a table; and a dataset of them."""
    (folder / "files").mkdir()
    names = {name: f"{k:02}.png" for k, name in enumerate(FILES)}
    for name, file in names.items():
        (folder / "files" / file).write_bytes(FILES[name])
    (folder / "list.txt").write_text("".join(f"files/{file}\n" for file in names.values()))
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name, file in names.items():
            member = tarfile.TarInfo(file)
            member.size = len(FILES[name])
            tar.addfile(member, io.BytesIO(FILES[name]))
    pq.write_table(pa.table({"image": list(FILES.values())}), folder / "0.parquet")
    make, path = {
        "folder": (images, "files"), "list": (images, "list.txt"), "tar": (shards, "0.tar"),
        "table": (parquet, "0.parquet"),
    }[place]  # fmt: skip
    return lambda **options: make(path=str(folder / path), holdout=0, **options)


class Windows:
    sizes = ((24, 24),)

    def __init__(self, window):
        self.window = window

    def windows(self, row, height, width):
        return [self.window]


def bad_in(fetch):
    with pytest.raises(CorruptSamples) as found:
        fetch()
    return {list(FILES)[row] for row in found.value.rows}


@pytest.mark.parametrize("place", ["folder", "list", "tar", "table"])
def test_the_same_files_are_bad_wherever_they_lie_and_however_they_are_cut(tmp_path, place):
    dataset_of = written(tmp_path, place)
    every = torch.arange(len(FILES))
    for size in (120, 15):
        dataset = dataset_of(size=size)
        assert bad_in(lambda: dataset.fetch(every)) == set(BAD)  # noqa: B023
        assert bad_in(lambda: dataset.fetch(every)) == set(BAD)  # noqa: B023  verified, or known as bad
    for window in ((0, 0, 120, 160), (3, 5, 25, 30)):
        dataset = dataset_of(size=15, crop="worker")
        assert bad_in(lambda: dataset.fetch_crops(every, Windows(window))) == set(BAD)  # noqa: B023


@pytest.mark.parametrize(("to", "size"), [("array", 15), ("shards", None), ("shards", 60)])
def test_a_pack_leaves_the_same_files_out(tmp_path, to, size):
    written(tmp_path, "folder")
    pack(str(tmp_path / "files"), tmp_path / "packed", to, size, 0, 1)
    left_out = (tmp_path / "packed" / "bad_samples.txt").read_text().splitlines()
    assert {list(FILES)[int(line.split("\t")[0][-6:-4])] for line in left_out} == set(BAD)
