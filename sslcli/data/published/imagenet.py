"""ImageNet's ILSVRC 2012 (Russakovsky et al. 2015) in the folders that torchvision.datasets.ImageNet unpacks it to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sslcli.data.base import Dataset, with_held_out
from sslcli.data.pictures.base import Crop, Pictures
from sslcli.data.pictures.file_index import Index, index
from sslcli.errors import UserError

_WNID = re.compile(r"n\d{8}")  # a WordNet id
_ADVICE = (
    "It must hold train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, as torchvision.datasets.ImageNet unpacks the archives of "
    "image-net.org, which need an account; dataset=images takes any other layout."
)


def imagenet(*, path: str, size: int = 224, crop: Crop = "worker", holdout: float | None = None) -> Dataset:
    """Make the dataset of 1,281,167 training pictures in 1,000 classes; ``held_out`` is val, 50,000 pictures.

    The folders may have a subset of the classes. A label is the rank of the class among the sorted WordNet ids.

    Args:
        path: the folder that holds train and val.
        size: pixels a side, as in ``images``.
        crop: where training crops are cut, as in ``images``.
        holdout: the fraction of train to hold out for probes instead of val.
    """
    train, val = (_split(Path(path).expanduser(), name) for name in ("train", "val"))
    if train.classes != val.classes:
        first = min(set(train.classes) ^ set(val.classes))
        only = [len(set(one.classes) - set(other.classes)) for one, other in ((train, val), (val, train))]
        raise UserError(
            f"dataset.path: train and val in {path} do not have the same classes, for example {first}: "
            f"{only[0]} are in train only and {only[1]} in val only."
        )
    parts = [Pictures(split, size, crop) for split in (train, val)]
    for part in parts:
        part.classes = _named(train.classes)
    return with_held_out(parts[0], parts[1], holdout)


def _named(wnids: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes by their WordNet ids, such as ``tench (n01440764)``."""
    from timm.data import ImageNetInfo

    published = ImageNetInfo("imagenet-22k")
    known = set(published.label_names())
    first = {wnid: published.label_name_to_description(wnid).split(",")[0] for wnid in known.intersection(wnids)}
    return tuple(f"{first[wnid]} ({wnid})" if wnid in first else wnid for wnid in wnids)


def _split(root: Path, name: str) -> Index:
    folder = root / name
    if not folder.is_dir():
        raise UserError(f"dataset.path: there is no {name} folder in {root}. {_ADVICE}")
    found = index(str(folder))
    other = [wnid for wnid in found.classes or ["pictures of one folder only"] if not _WNID.fullmatch(wnid)]
    if other:
        raise UserError(f"dataset.path: {folder} holds {other[0]} where WordNet ids are expected. {_ADVICE}")
    return found
