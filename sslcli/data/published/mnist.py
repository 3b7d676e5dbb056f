"""MNIST (LeCun, Cortes and Burges 1998) from its idx files, which are downloaded if they are missing."""

from __future__ import annotations

from pathlib import Path

import torch

from sslcli.data.base import Dataset, with_held_out
from sslcli.data.download import unpacked
from sslcli.data.published.class_names import DIGITS
from sslcli.data.published.idx import NAMES, find, read_splits
from sslcli.types import Field, Spec

_SPEC = Spec(image=Field("image", (1, 28, 28), torch.uint8, mean=(0.1307,), std=(0.3081,)))


def mnist(*, path: str = "data", download: bool = True, holdout: float | None = None) -> Dataset:
    """Make the dataset of 60,000 training and 10,000 test images in ``path`` or in torchvision's ``path``/MNIST/raw."""
    from torchvision.datasets import MNIST as published

    root = Path(path).expanduser()
    folder = root if find(root, NAMES[0]) else root / "MNIST" / "raw"
    md5s = dict(published.resources)
    for name in NAMES:
        if find(folder, name) is None:
            urls = [f"{mirror}{name}.gz" for mirror in published.mirrors]
            unpacked(folder, name, urls=urls, md5=md5s[f"{name}.gz"], download=download)
    train, test = read_splits(folder, _SPEC, DIGITS, "Fetch it again.")
    return with_held_out(train, test, holdout)
