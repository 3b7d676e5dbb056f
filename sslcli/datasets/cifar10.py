"""CIFAR-10 (Krizhevsky 2009) from its python batches, downloaded when they are not there."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from sslcli.datasets.base import Columns, Dataset, with_held_out
from sslcli.errors import UserError
from sslcli.types import Field, Spec

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
_SPEC = Spec(image=Field(shape=(3, 32, 32), mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)))


def cifar10(*, path: str = "data", download: bool = True, holdout: float | None = None) -> Dataset:
    """50,000 training and 10,000 test images from ``path``/cifar-10-batches-py."""
    root = Path(path).expanduser()
    folder = root / "cifar-10-batches-py"
    if not folder.is_dir():
        _download(root, download)
    train = [_read(folder / f"data_batch_{k}") for k in range(1, 6)]
    test = _read(folder / "test_batch")
    whole = Columns(
        _SPEC,
        {"image": torch.cat([part.columns["image"] for part in train])},
        torch.cat([part.labels for part in train if part.labels is not None]),
    )
    return with_held_out(whole, test, holdout)


def _download(root: Path, download: bool) -> None:
    missing = f"dataset.path: there is no cifar-10-batches-py in {root}"
    if not download:
        raise UserError(f"{missing} and dataset.download is false.")
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        download_and_extract_archive(URL, str(root), md5=MD5)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{missing} and it could not be downloaded ({error}). Unpack {URL} there.") from None


class _ArraysOnly(pickle.Unpickler):
    """The batches are pickles; this reads numpy arrays out of them and refuses anything that could run code."""

    _known = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def _read(path: Path) -> Columns:
    try:
        with path.open("rb") as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        images = torch.from_numpy(batch[b"data"].copy()).view(-1, 3, 32, 32)
        labels = torch.tensor(batch[b"labels"])
        if labels.shape != images.shape[:1]:
            raise ValueError(f"{len(images)} images and {len(labels)} labels")
        return Columns(_SPEC, {"image": images}, labels)
    except FileNotFoundError:
        raise UserError(f"dataset.path: {path} is missing. Unpack CIFAR-10 there again.") from None
    except (
        pickle.UnpicklingError,
        EOFError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        ValueError,
    ) as error:
        raise UserError(f"dataset.path: {path} is not a CIFAR-10 batch ({error}).") from None
