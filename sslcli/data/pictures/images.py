"""A user's own pictures: a folder of any layout or a list of files, with parent folders as labels, if any."""

from __future__ import annotations

import torch

from sslcli.config.ranges import Count, Side
from sslcli.data.base import Dataset, Subset, with_held_out
from sslcli.data.pictures.base import Crop, Pictures
from sslcli.data.pictures.file_index import By, Links, index


def images(
    *,
    path: str,
    size: Side = 64,
    channels: Count | None = None,
    crop: Crop = "device",
    label: By | None = None,
    links: Links = "one",
    split_folders: bool = True,
    holdout: float | None = None,
) -> Dataset:
    """Make a dataset of all pictures below a folder, or of those that a text file lists.

    The class of a picture is the name of its parent folder. If all pictures are in one folder, there are no labels.
    Folders right below ``path`` that are named after the parts of a split are kept apart: probes query test, or
    validation if test has no class that train has.

    Args:
        path: the folder, which is searched with all sub-folders, or a text file with one path a line.
        size: pixels a side of the pictures for evaluation, and for training with ``crop=device``.
        channels: channels of each picture; None is three: red, green and blue. With a number, .npy files are pictures.
        crop: where training crops are cut. ``device``: from the ``size`` x ``size`` picture. ``worker``: from the full
            picture when it is decoded, which keeps more detail and takes more CPU time.
        label: whose name is the label: ``parent``, ``top`` (the first folder below ``path``) or ``none``. None is
            ``parent``, but ``top`` if all parents have the same name, as in CLASS/images/0001.png.
        links: ``one`` takes the first name of each file; ``keep`` takes all, on one side of the held-out split.
        split_folders: whether to keep apart folders that are named train and test, val, valid, ...
        holdout: the fraction that is held out for probes; None is the folder of the split, or without one 0.2 with
            labels, else 0.05.
    """
    found = index(path, label, links, arrays=channels is not None, apart=split_folders)
    pictures = Pictures(found, size, crop, channels)
    if found.split is None:
        return with_held_out(pictures, None, holdout, found.first)
    queried = found.split.held_out(found.labels) if holdout is None else None
    pictures.notes = (("split", found.split.in_words(queried, asked=holdout is None)), *pictures.notes)
    trained = found.split.index(0)
    first = None if found.first is None else torch.searchsorted(trained, found.first[trained])
    test = None if queried is None else Subset(pictures, found.split.index(queried))
    return with_held_out(Subset(pictures, trained), test, holdout, first)
