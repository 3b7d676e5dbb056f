"""WebDataset's shards: tars of pictures, each with its class in a .cls member; samples are read in random order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sslcli.config.ranges import Count, Side
from sslcli.config.secrets import hide
from sslcli.data.base import Dataset, Notes, with_held_out
from sslcli.data.pictures.base import Crop, Pictures
from sslcli.data.pictures.byte_ranges import ByteRanges, Part
from sslcli.data.pictures.file_patterns import expand, find
from sslcli.data.pictures.pack_json import PACK, TARS, about
from sslcli.data.pictures.remote import is_remote, local_copies
from sslcli.data.pictures.tars import index_tar, member_name
from sslcli.errors import UserError

# Compressed tars are found, too, to report that they cannot be read.
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def shards(
    *,
    path: str,
    size: Side = 64,
    channels: Count | None = None,
    crop: Crop = "device",
    cache_dir: str | None = None,
    holdout: float | None = None,
) -> Dataset:
    """Make a dataset of all pictures in some tars, in the order of the tars' names and of the members.

    A sample is a run of members whose names are equal up to the first dot of the file name. Its picture is the first
    member with a picture's extension (``.jpg`` before ``.left.jpg``); its class is the number or name in its ``.cls``.
    Where names have dots, such as ``IMG_2020.01.07.png``, every picture is a sample.
    The names of numbered classes are read from the ``pack.json`` that ``ssl-pack`` writes next to its tars.

    Args:
        path: a folder, a pattern such as ``data/*.tar``, a list such as ``data/{000..009}.tar``, or the same as a URL
            that fsspec knows (s3://, gs://, https://, ...).
        size: pixels a side, as in ``images``.
        channels: channels of each picture; None is three: red, green and blue.
        crop: where training crops are cut, as in ``images``.
        cache_dir: the folder for copies of remote shards; None is the user's cache.
        holdout: the fraction that is held out for probes; None is 0.2 with labels, else 0.05.
    """
    tars = local_copies(path, expand(path), cache_dir) if is_remote(path) else find(path, SUFFIXES)
    names = {folder: _class_names(folder) for folder in {tar.parent for tar in tars}}
    bar = tqdm(tars, desc="reading shards", unit=" shards", disable=None)
    parts = [replace(index_tar(tar), names=names[tar.parent]) for tar in bar]
    if not any(len(part.start) for part in parts):
        members = sum(int(part.counts[0]) for part in parts)
        raise UserError(f"dataset.path: {hide(path)} holds no picture: {members:,} members of {_shards(parts)}.")
    return with_held_out(Pictures(Shards(tars, parts, notes=_notes(parts)), size, crop, channels), None, holdout)


def _shards(parts: Sequence[Part]) -> str:
    return f"{len(parts):,} shard{'s' * (len(parts) != 1)}"


def _notes(parts: Sequence[Part]) -> Notes:
    """Return the start line about the members of shards."""
    members, further, links = np.sum([part.counts for part in parts], 0).tolist()
    text = f"{members:,} members of {_shards(parts)} became {sum(len(part.start) for part in parts):,} samples"
    if further:
        text += f"; {further:,} further pictures of the same samples, such as .mask.png, are left out"
    if links:
        text += f"; {links:,} links to other members are left out"
    return (("members", text),)


def _class_names(folder: Path) -> np.ndarray:
    """Return the names of the classes 0, 1, ... that ``ssl-pack`` wrote next to the tars, as bytes; none if it did not.

    Raises:
        UserError: its file is damaged.
    """
    if not (folder / PACK).is_file():
        return np.zeros(0, "S1")
    return np.array([name.encode() for name in about(folder, TARS)["classes"]], "S")


class Shards(ByteRanges):
    """The pictures in the members of some tars."""

    def where(self, i: int) -> str:
        """Return the path of the shard and the name of the member."""
        number = int(self.number[i])
        return f"{self.files.paths[number]}: {member_name(self.files, number, int(self.start[i]))}"
