"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): the embedded 20,000 images, and all 70,000 from its idx files."""

from __future__ import annotations

import gzip
import lzma
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslcli.datasets.base import Columns, Dataset, with_held_out
from sslcli.errors import UserError
from sslcli.types import Field, Spec

EMBEDDED = Path(__file__).with_name("fashion_mnist_mini.xz")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
_SPEC = Spec(image=Field(shape=(1, 28, 28), mean=(0.2860,), std=(0.3530,)))


def fashion_mnist_mini(*, holdout: float | None = None) -> Dataset:
    """1,000 training images a class and all 10,000 test images, inside the package: no network, no files."""
    raw = torch.frombuffer(bytearray(lzma.decompress(EMBEDDED.read_bytes())), dtype=torch.uint8)
    labels, images = raw[:20_000].long(), raw[20_000:].view(20_000, 1, 28, 28)
    train = Columns(_SPEC, {"image": images[:10_000]}, labels[:10_000])
    return with_held_out(train, Columns(_SPEC, {"image": images[10_000:]}, labels[10_000:]), holdout)


def fashion_mnist(*, path: str | None = None, holdout: float | None = None) -> Dataset:
    """All 60,000 training and 10,000 test images.

    Args:
        path: a folder with the four idx files, gzipped or not, or with torchvision's FashionMNIST/raw in it;
            null looks where Debian's package dataset-fashion-mnist puts them.
        holdout: fraction of train that probes query instead of test.
    """
    root = Path(path).expanduser() if path else DEBIAN
    folder = root / "FashionMNIST" / "raw" if (root / "FashionMNIST").is_dir() else root

    def split(prefix: str) -> Columns:
        images = read_idx(folder, f"{prefix}-images-idx3-ubyte")[:, None]
        labels = read_idx(folder, f"{prefix}-labels-idx1-ubyte").long()
        if images.shape != (len(labels), 1, 28, 28):
            raise UserError(f"dataset.path: the {prefix} files in {folder} do not belong together. Fetch them again.")
        return Columns(_SPEC, {"image": images}, labels)

    return with_held_out(split("train"), split("t10k"), holdout)


def read_idx(folder: Path, name: str) -> Tensor:
    """A uint8 tensor from an idx file: two zero bytes, type 8, rank, then the big-endian sizes and the data."""
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
    if path is None:
        raise UserError(
            f"dataset.path: there is no '{name}' in {folder}. Install Debian's package dataset-fashion-mnist, "
            "or set dataset.path to a folder with the four idx files; dataset=fashion_mnist_mini needs neither."
        )
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"dataset.path: {path} is damaged ({error}). Fetch it again.") from None
    rank = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    start = 4 + 4 * rank
    shape = tuple(int(n) for n in np.frombuffer(raw, ">i4", rank, offset=4)) if len(raw) >= start else ()
    if not rank or len(shape) != rank or len(raw) != start + math.prod(shape):
        raise UserError(f"dataset.path: {path} is damaged or not an idx file. Fetch it again.")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=start).view(shape)
