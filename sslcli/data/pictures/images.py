"""A user's own pictures: a folder of any layout or a list of files, with parent folders as labels, if any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sslcli.config.ranges import Count, Side
from sslcli.data.base import Dataset, with_held_out
from sslcli.data.pictures.base import Crop, Pictures
from sslcli.data.pictures.file_index import By, Index, Links, index
from sslcli.data.pictures.split_folders import SplitFolders, find_split_folders


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
    Folders that are named after the parts of a split are kept apart: train and test, or validation if there is no test
    or its pictures have no labels.

    Args:
        path: the folder, which is searched with all sub-folders, or a text file with one path a line.
        size: pixels a side of the pictures for evaluation, and for training with ``crop=device``.
        channels: channels of each picture; None is three: red, green and blue. With a number, .npy files are pictures.
        crop: where training crops are cut. ``device``: from the ``size`` x ``size`` picture. ``worker``: from the full
            picture when it is decoded, which keeps more detail and takes more CPU time.
        label: whose name is the label: ``parent``, ``top`` (the first folder below ``path``) or ``none``. None is
            ``parent``, but ``top`` if all parents have the same name, as in CLASS/images/0001.png.
        links: ``one`` takes the first name of each file; ``keep`` takes all, on one side of the held-out split.
        split_folders: whether to keep apart folders right below ``path`` that are named train and test, val, valid, ...
        holdout: the fraction that is held out for probes; None is the folder of the split, or without one 0.2 with
            labels, else 0.05.
    """

    def read(folder: str | Path) -> Index:
        return index(str(folder), label, links, arrays=channels is not None)

    folders = find_split_folders(path) if split_folders else None
    found, queried = (read(path), None) if folders is None else _parts(folders, read, holdout)
    test = None if queried is None else Pictures(queried, size, crop, channels)
    return with_held_out(Pictures(found, size, crop, channels), test, holdout, found.first)


def _parts(folders: SplitFolders, read: Callable[[Path], Index], holdout: float | None) -> tuple[Index, Index | None]:
    """Return the training part, with what the start lines say of both, and the one that probes query, if there is one.

    A test part without labels, such as that of a competition, is of no use to probes where the training part has some.
    """
    train = read(folders.train)
    for folder in folders.held_out if holdout is None else ():
        queried = read(folder)
        if queried.labels is not None or train.labels is None:
            of_queried = ((f"{word} of {folder.name}", text) for word, text in queried.notes)
            return replace(train, notes=(*folders.notes(folder), *train.notes, *of_queried)), queried
    return replace(train, notes=(*folders.notes(None), *train.notes)), None
