"""STL-10 (Coates, Lee and Ng 2011) from its binary files, which are downloaded if they are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import Dataset, with_held_out
from sslcli.data.download import unpacked
from sslcli.data.fingerprints import LIMIT, of_files
from sslcli.data.memory_map import MemoryMap
from sslcli.data.published.class_names import STL10 as CLASSES
from sslcli.errors import UserError
from sslcli.types import Field, Spec

# Mean and std of the train and the unlabelled images together.
_SPEC = Spec(
    image=Field("image", (3, 96, 96), torch.uint8, mean=(0.4313, 0.4156, 0.3663), std=(0.2683, 0.2610, 0.2687))
)
_BYTES = 3 * 96 * 96


def stl10(*, path: str = "data", download: bool = True, holdout: float | None = None) -> Dataset:
    """Make the dataset of 5,000 labelled and 100,000 unlabelled training images and 8,000 test images, 96 x 96 pixels.

    Labelled images come first. Unlabelled images have the label -1. Probes do not use them, so the reference samples of
    probes are the published training split; objectives that read labels cannot use this dataset.
    """
    from torchvision.datasets import STL10 as published

    root = Path(path).expanduser()
    folder = unpacked(root, "stl10_binary", urls=[published.url], md5=published.tgz_md5, download=download)
    parts = [_images(folder / "train_X.bin"), _images(folder / "unlabeled_X.bin")]
    labels = _labels(folder / "train_y.bin", len(parts[0]))
    train = STL10(parts, torch.cat([labels, torch.full((len(parts[1]),), -1)]))
    test = _images(folder / "test_X.bin")
    return with_held_out(train, STL10([test], _labels(folder / "test_y.bin", len(test))), holdout)


class STL10(Dataset):
    """The images of several files, one file after the other, read from the disk when they are fetched."""

    classes = CLASSES

    def __init__(self, parts: Sequence[MemoryMap], labels: Tensor) -> None:
        self.spec = _SPEC
        self.parts = list(parts)
        self.labels = labels

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def fingerprint(self, limit: int = LIMIT) -> str:
        return f"{len(self)} samples, {of_files([part.path for part in self.parts], limit)}"

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        images = torch.empty(len(index), 3, 96, 96, dtype=torch.uint8)
        start = 0
        for part in self.parts:
            in_part = (index >= start) & (index < start + len(part))
            images[in_part] = part.rows[index[in_part] - start].transpose(2, 3)  # the files are in column-major order
            start += len(part)
        return {"image": images}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Convert an error in a block to a UserError that names the missing or damaged file."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise UserError(f"dataset.path: {path} {reason}. Remove {path.parent} and unpack it again.") from None


def _images(path: Path) -> MemoryMap:
    with _named(path):
        return MemoryMap(path, (path.stat().st_size // _BYTES, 3, 96, 96))


def _labels(path: Path, count: int) -> Tensor:
    with _named(path):
        labels = torch.from_numpy(np.fromfile(path, np.uint8)).long() - 1  # 1 to 10 in the file
        if len(labels) != count or not ((labels >= 0) & (labels < 10)).all():
            raise ValueError(f"not {count:,} labels from 1 to 10")
        return labels
