"""One's own pictures: a folder of any layout or a list of files, labelled by parent folders or not at all."""

from __future__ import annotations

from sslcli.data.base import Dataset, with_held_out
from sslcli.data.pictures.base import Crop, Pictures
from sslcli.data.pictures.file_index import index


def images(*, path: str, size: int = 64, crop: Crop = "device", holdout: float | None = None) -> Dataset:
    """Every picture below a folder, or that a text file names.

    A label is the name of a picture's parent folder; pictures that all share one folder have none.

    Args:
        path: the folder, searched with all its sub-folders, or a text file with one path a line.
        size: pixels a side: of what evaluation reads, and of what training crops on the device.
        crop: where training crops are cut. ``device``: out of the ``size`` x ``size`` picture; ``worker``: out of the
            full picture while it is decoded, which keeps its detail and costs the processor more.
        holdout: the fraction kept for probes; null is 0.2 with labels, else 0.05.
    """
    return with_held_out(Pictures(index(path), size, crop), None, holdout)
