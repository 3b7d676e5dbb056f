"""The digest at the end of a file."""

import hashlib
import zipfile

import pytest
import torch

from sslcli.run_dir import seal
from sslcli.run_dir.seal import write_sealed


def broken_seal(path):
    with path.open("rb") as file:
        return seal.broken_seal(file)


@pytest.fixture
def path(tmp_path):
    torch.save({"x": torch.arange(1000)}, tmp_path / "plain.pt")
    with (tmp_path / "x.pt").open("wb") as file:
        write_sealed(file, (tmp_path / "plain.pt").read_bytes())
    return tmp_path / "x.pt"


def test_the_seal_is_the_sha256_of_what_is_before_it(path, tmp_path):
    content = (tmp_path / "plain.pt").read_bytes()
    assert path.read_bytes() == content + b"\nsha256 " + hashlib.sha256(content).hexdigest().encode() + b"\n"
    assert broken_seal(path) == "" and broken_seal(tmp_path / "plain.pt") is None


def test_torch_and_zipfile_read_on(path):
    assert torch.equal(torch.load(path, weights_only=True)["x"], torch.arange(1000))
    assert zipfile.ZipFile(path).testzip() is None


def test_every_flipped_bit_is_found(path):
    whole = path.read_bytes()
    for place in range(0, len(whole) - 73, 97):  # behind it a flip makes another seal, or none: see the next test
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert broken_seal(path), place


@pytest.mark.parametrize("place", [-1, -2, -30, -64])
def test_a_flipped_bit_in_the_digest_is_found(path, place):
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 2
    path.write_bytes(damaged)
    assert broken_seal(path)


@pytest.mark.parametrize("cut", [1, 2, 40, 64])
def test_a_cut_seal_is_found(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    assert broken_seal(path)


def test_short_files_have_no_seal(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    assert broken_seal(tmp_path / "x") is None
