"""The structure of zip files of ``torch.save``: what torch reads without noticing is refused before."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from sslcli.run_dir.archive import BrokenArchive, ForeignArchive, members
from sslcli.run_dir.torch_file import load_archive

WHOLE = {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.arange(3), "half": torch.ones(2).bfloat16(), "n": 7}


def saved(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def loaded(content):
    return load_archive(io.BytesIO(content))


def equal(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a
    )


def flipped(content, bit):
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_members_are_those_that_zipfile_finds():
    content = saved(WHOLE)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        expected = {info.filename: archive.read(info) for info in archive.infolist()}
    found = members(io.BytesIO(content), len(content))
    assert {member.name: content[member.start :][: member.size] for member in found} == expected


def test_every_flipped_bit_is_found_or_changes_nothing():
    """Without a seal: all bits of the directory and of its end, and one bit of every byte before them."""
    whole = {"weight": torch.arange(3.0)}
    content = saved(whole)
    directory = content.index(b"PK\1\2")
    bits = [*(8 * place + place % 8 for place in range(directory)), *range(8 * directory, 8 * len(content))]
    found = 0
    for bit in bits:
        try:
            assert equal(loaded(flipped(content, bit)), whole), bit
        except BrokenArchive:
            found += 1
    assert found > len(bits) / 2  # the others are between members, or nobody reads them


def test_torch_alone_returns_memory_that_nothing_was_written_to():
    """Why there is a check at all: the attribute of a folder in the directory."""
    content = saved({"x": torch.full((1 << 20,), 3.0)})
    at = content.rfind(b"PK\1\2", 0, content.rfind(b"archive/data/0"))
    damaged = flipped(content, 8 * (at + 38) + 4)
    assert zipfile.ZipFile(io.BytesIO(damaged)).testzip() is None
    assert not torch.equal(torch.load(io.BytesIO(damaged), weights_only=True)["x"], torch.full((1 << 20,), 3.0))
    with pytest.raises(BrokenArchive, match="archive/data/0"):
        loaded(damaged)


@pytest.mark.parametrize("cut", [1, 21, 22, 98, 500])
def test_a_cut_file_is_broken(cut):
    with pytest.raises(BrokenArchive):
        loaded(saved(WHOLE)[:-cut])


def with_pickle(change):
    """The archive with another data.pkl, and everything else, checksums too, as it should be."""
    file, source = io.BytesIO(), zipfile.ZipFile(io.BytesIO(saved(WHOLE)))
    with zipfile.ZipFile(file, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return file.getvalue()


def test_a_rewritten_archive_is_read():
    assert equal(loaded(with_pickle(lambda content: content)), WHOLE)


def test_more_numbers_than_there_are_bytes_for():
    """A pickle may ask for more than its member has: earlier versions of torch gave what lay behind it."""
    content = with_pickle(lambda pickled: pickled.replace(b"K\x0ct", b"K\xfft"))  # 255 numbers instead of 12
    with pytest.raises(BrokenArchive, match="lacks bytes of the tensor '0'"):
        loaded(content)


def test_a_storage_that_is_described_in_another_way_is_refused():
    """Otherwise the sizes that are compared could be others than those that torch uses."""
    content = with_pickle(lambda pickled: pickled.replace(b"Q", b"0Q", 1))  # pops the description, uses another
    with pytest.raises(ForeignArchive):
        loaded(content)


@pytest.mark.parametrize("make", [
    lambda file: np.savez(file, x=np.arange(3)),
    lambda file: np.savez_compressed(file, x=np.arange(300)),
    lambda file: zipfile.ZipFile(file, "w").mkdir("folder"),
])  # fmt: skip
def test_other_zip_files_are_foreign_and_not_broken(make):
    file = io.BytesIO()
    make(file)
    with pytest.raises(ForeignArchive):
        load_archive(file)


def test_two_members_of_one_name():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/DATA.pkl", pickle.dumps({}, 2))
    with pytest.raises(BrokenArchive, match="one name"):
        load_archive(file)


def test_sizes_of_more_than_32_bits_are_read_from_the_extra_field():
    """As in a checkpoint with a tensor of 4 GiB, of which only the directory is made here."""
    content = saved(WHOLE)
    at = content.rfind(b"PK\1\2", 0, content.rfind(b"archive/data/0"))
    entry = bytearray(content[at : at + 46 + len("archive/data/0")])
    size = struct.unpack_from("<I", entry, 24)[0]
    extra = struct.pack("<2H2Q", 1, 16, size, size)
    struct.pack_into("<2I", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, len(extra))
    wide = content[:at] + bytes(entry) + extra + content[at + len(entry) :]
    end = len(wide) - 98  # both ends of the directory say how long it is
    for place, form in ((end + 40, "<Q"), (len(wide) - 10, "<I")):
        wide = bytearray(wide)
        struct.pack_into(form, wide, place, struct.unpack_from(form, wide, place)[0] + len(extra))
    place = len(wide) - 22 - 20 + 8
    struct.pack_into("<Q", wide, place, struct.unpack_from("<Q", wide, place)[0] + len(extra))
    assert equal(loaded(bytes(wide)), WHOLE)
