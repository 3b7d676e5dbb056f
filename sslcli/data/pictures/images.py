"""A user's own pictures: a folder of any layout or a list of files, with parent folders as labels, if any."""

from __future__ import annotations

from sslcli.config.ranges import Count, Side
from sslcli.data.base import Dataset, with_held_out
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
    holdout: float | None = None,
) -> Dataset:
    """Make a dataset of all pictures below a folder, or of those that a text file lists.

    The class of a picture is the name of its parent folder. If all pictures are in one folder, there are no labels.

    Args:
        path: the folder, which is searched with all sub-folders, or a text file with one path a line.
        size: pixels a side of the pictures for evaluation, and for training with ``crop=device``.
        channels: channels of each picture; None is three: red, green and blue. With a number, .npy files are pictures.
        crop: where training crops are cut. ``device``: from the ``size`` x ``size`` picture. ``worker``: from the full
            picture when it is decoded, which keeps more detail and takes more CPU time.
        label: whose name is the label: ``parent``, ``top`` (the first folder below ``path``) or ``none``. None is
            ``parent``, but ``top`` if all parents have the same name, as in CLASS/images/0001.png.
        links: ``one`` takes the first name of each file; ``keep`` takes all, on one side of the held-out split.
        holdout: the fraction that is held out for probes; None is 0.2 with labels, else 0.05.
    """
    found = index(path, label, links, arrays=channels is not None)
    return with_held_out(Pictures(found, size, crop, channels), None, holdout, found.first)
