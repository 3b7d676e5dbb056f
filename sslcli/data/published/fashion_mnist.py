"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 20,000 images inside the package, or all 70,000 from idx files."""

from __future__ import annotations

import functools
import lzma
from pathlib import Path

import torch
from torch import Tensor

from sslcli.data.base import Columns, Dataset, with_held_out
from sslcli.data.published.class_names import FASHION
from sslcli.data.published.idx import read_splits
from sslcli.types import Field, Spec

EMBEDDED = Path(__file__).with_name("fashion_mnist_mini.xz")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
_SPEC = Spec(image=Field("image", (1, 28, 28), torch.uint8, mean=(0.2860,), std=(0.3530,)))


def fashion_mnist_mini(*, holdout: float | None = None) -> Dataset:
    """Make the dataset of 1,000 training images a class and all 10,000 test images, from a file inside the package."""
    raw = _embedded()
    labels, images = raw[:20_000].long(), raw[20_000:].view(20_000, 1, 28, 28)
    train = Columns(_SPEC, {"image": images[:10_000]}, labels[:10_000], FASHION)
    test = Columns(_SPEC, {"image": images[10_000:]}, labels[10_000:], FASHION)
    return with_held_out(train, test, holdout)


@functools.cache  # a sweep's jobs share one process, and unpacking takes half a second
def _embedded() -> Tensor:
    """Return the bytes of the file: the labels of train and test, then the pixels."""
    return torch.frombuffer(bytearray(lzma.decompress(EMBEDDED.read_bytes())), dtype=torch.uint8)


def fashion_mnist(*, path: str | None = None, holdout: float | None = None) -> Dataset:
    """Make the dataset of all 60,000 training and 10,000 test images.

    Args:
        path: a folder with the four idx files, gzipped or not, or with torchvision's FashionMNIST/raw in it;
            None uses the folder of Debian's package dataset-fashion-mnist.
        holdout: the fraction of train to hold out for probes instead of the test split.
    """
    root = Path(path).expanduser() if path else DEBIAN
    folder = root / "FashionMNIST" / "raw" if (root / "FashionMNIST").is_dir() else root
    advice = (
        "Install Debian's package dataset-fashion-mnist, or set dataset.path to a folder with the four idx files; "
        "dataset=fashion_mnist_mini needs neither."
    )
    train, test = read_splits(folder, _SPEC, FASHION, advice)
    return with_held_out(train, test, holdout)
