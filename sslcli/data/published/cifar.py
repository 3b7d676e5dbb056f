"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their Python batches, which are downloaded if missing."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sslcli.data.base import Columns, Dataset, with_held_out
from sslcli.data.download import unpacked
from sslcli.data.published.class_names import CIFAR10, CIFAR100
from sslcli.data.regular_files import open_regular
from sslcli.errors import UserError
from sslcli.types import Field, Spec

_SPEC10 = Spec(
    image=Field("image", (3, 32, 32), torch.uint8, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
)
_SPEC100 = Spec(
    image=Field("image", (3, 32, 32), torch.uint8, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))
)


def cifar10(*, path: str = "data", download: bool = True, holdout: float | None = None) -> Dataset:
    """Make the dataset of 50,000 training and 10,000 test images of 10 classes in ``path``/cifar-10-batches-py."""
    from torchvision.datasets import CIFAR10 as published

    root = Path(path).expanduser()
    folder = unpacked(root, "cifar-10-batches-py", urls=[published.url], md5=published.tgz_md5, download=download)
    train = _read([folder / f"data_batch_{k}" for k in range(1, 6)], _SPEC10, b"labels", CIFAR10)
    return with_held_out(train, _read([folder / "test_batch"], _SPEC10, b"labels", CIFAR10), holdout)


def cifar100(*, path: str = "data", download: bool = True, holdout: float | None = None) -> Dataset:
    """Make the dataset of 50,000 training and 10,000 test images of 100 fine classes in ``path``/cifar-100-python."""
    from torchvision.datasets import CIFAR100 as published

    root = Path(path).expanduser()
    folder = unpacked(root, "cifar-100-python", urls=[published.url], md5=published.tgz_md5, download=download)
    train = _read([folder / "train"], _SPEC100, b"fine_labels", CIFAR100)
    return with_held_out(train, _read([folder / "test"], _SPEC100, b"fine_labels", CIFAR100), holdout)


class _ArraysOnly(pickle.Unpickler):
    """Reads numpy arrays from the batches, which are pickles, and refuses anything that could run code."""

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


def _read(paths: Sequence[Path], spec: Spec, key: bytes, classes: tuple[str, ...]) -> Columns:
    """Read the images of some batches, and their labels, which are under ``key``."""
    images, labels = zip(*(_batch(path, key) for path in paths))
    return Columns(spec, {"image": torch.cat(images)}, torch.cat(labels), classes)


def _batch(path: Path, key: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        with open_regular(path) as file:
            batch = _ArraysOnly(file, encoding="bytes").load()
        images = torch.from_numpy(batch[b"data"].copy()).view(-1, 3, 32, 32)
        labels = torch.tensor(batch[key])
        if labels.shape != images.shape[:1]:
            raise ValueError(f"{len(images)} images and {len(labels)} labels")
        return images, labels
    except FileNotFoundError:
        raise UserError(f"dataset.path: {path} is missing. Remove {path.parent} and unpack it again.") from None
    except (
        pickle.UnpicklingError,
        EOFError,
        OSError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        ValueError,
    ) as error:
        raise UserError(f"dataset.path: {path} is not a CIFAR batch ({error}).") from None
