"""WebDataset's shards: pictures in tars, a class beside each in a .cls member, read at random like any other set."""

from __future__ import annotations

from tqdm import tqdm

from sslcli.data.base import Dataset, with_held_out
from sslcli.data.pictures.base import Crop, Pictures
from sslcli.data.pictures.byte_ranges import ByteRanges
from sslcli.data.pictures.file_patterns import expand, find
from sslcli.data.pictures.remote import is_remote, local_copies
from sslcli.data.pictures.tars import index_tar, member_name
from sslcli.errors import UserError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # the packed ones to refuse, not to miss


def shards(
    *,
    path: str,
    size: int = 64,
    crop: Crop = "device",
    cache_dir: str | None = None,
    holdout: float | None = None,
) -> Dataset:
    """Every picture in some tars, by the tars' names and then as they lie.

    A sample is a run of members whose names are equal up to the file name's first dot; its picture is the first member
    with a picture's extension (``.jpg`` before ``.left.jpg``), its class what its ``.cls`` says: a number, or a name.

    Args:
        path: a folder, a pattern such as ``data/*.tar``, a list such as ``data/{000..009}.tar``, or the same as a URL
            that fsspec knows (s3://, gs://, https://, ...).
        size: pixels a side, as of ``images``.
        crop: where training crops are cut, as of ``images``.
        cache_dir: where remote shards are kept, whole; null is the user's cache.
        holdout: the fraction kept for probes; null is 0.2 with labels, else 0.05.
    """
    tars = local_copies(path, expand(path), cache_dir) if is_remote(path) else find(path, SUFFIXES)
    parts = [index_tar(tar) for tar in tqdm(tars, desc="looking into shards", unit=" shards", disable=None)]
    if not any(len(part.start) for part in parts):
        raise UserError(f"dataset.path: no picture in the {len(tars)} shards of {path}.")
    return with_held_out(Pictures(Shards(tars, parts), size, crop), None, holdout)


class Shards(ByteRanges):
    """The pictures of some tars."""

    def where(self, i: int) -> str:
        """The shard and the name of the member."""
        number = int(self.number[i])
        return f"{self.files.paths[number]}: {member_name(self.files, number, int(self.start[i]))}"
