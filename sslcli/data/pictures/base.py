"""A dataset of pictures that are decoded when they are fetched, from folders, tars or tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from sslcli.data.base import CorruptSample, CorruptSamples, Dataset
from sslcli.data.fingerprints import LIMIT
from sslcli.data.pictures.decode import BadPicture, Source, decode, decode_crops
from sslcli.types import Crops, Field, Spec

Crop = Literal["device", "worker"]


class EncodedPictures(Protocol):
    """N encoded pictures that can be read one by one, in any order and in any process."""

    @property
    def labels(self) -> Tensor | None:
        """The labels (N,) int64, -1 for pictures without one; None if no picture has a label."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by label; () if no picture has a label."""

    def __len__(self) -> int: ...

    def source(self, i: int) -> Source:
        """Return the content of the i-th picture's file, or its path.

        Raises:
            BadPicture: the content cannot be read.
        """

    def where(self, i: int) -> str:
        """Return the place of the i-th picture, for messages."""

    def fingerprint(self, limit: int = LIMIT) -> str:
        """Return a text that changes if the pictures or their order change; see ``Dataset.fingerprint``."""

    def old_fingerprint(self) -> str:
        """Return the text that old checkpoints have instead."""


class Pictures(Dataset):
    """A dataset of the centred square of each picture, resized to ``size``, or of random crops for training.

    Args:
        encoded: the encoded pictures.
        size: pixels a side.
        crop: ``worker`` cuts training crops from the full pictures; with ``device`` the views cut crops.
    """

    decodes = True

    def __init__(self, encoded: EncodedPictures, size: int, crop: Crop = "device") -> None:
        if size < 1:
            raise ValueError(f"size={size} must be at least 1 pixel")
        self.encoded, self.size = encoded, size
        self.cuts_crops = crop == "worker"
        self.labels, self.classes = encoded.labels, encoded.classes
        self.spec = rgb(size)

    def __len__(self) -> int:
        return len(self.encoded)

    def fingerprint(self, limit: int = LIMIT) -> str:
        return self.encoded.fingerprint(limit)

    def old_fingerprint(self) -> str:
        return self.encoded.old_fingerprint()

    def name_of(self, i: int) -> str:
        return self.encoded.where(i)

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        columns = self._read(index, lambda _, source: [decode(source, self.size)], [(self.size, self.size)])
        return {"image": columns[0]}

    def fetch_crops(self, index: Tensor, crops: Crops) -> dict[str, Tensor]:
        columns = self._read(
            index,
            lambda row, source: decode_crops(source, lambda h, w: crops.windows(row, h, w), crops.sizes),
            crops.sizes,
        )
        return {f"image/{k}": column for k, column in enumerate(columns)}

    def _read(
        self, index: Tensor, read: Callable[[int, Source], list[Tensor]], sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Return a column (B, 3, *size) for each size.

        Raises:
            CorruptSamples: some pictures are corrupt; all others have been tried, too.
        """
        columns = [torch.empty(len(index), 3, *size, dtype=torch.uint8) for size in sizes]
        bad = {}
        for row, i in enumerate(index.tolist()):
            try:
                for column, pixels in zip(columns, read(row, self.encoded.source(i))):
                    column[row] = pixels
            except BadPicture as error:
                bad[row] = CorruptSample(self.encoded.where(i), str(error))
        if bad:
            raise CorruptSamples(bad)
        return columns


def rgb(size: int) -> Spec:
    """Return the spec of colour pictures of ``size`` x ``size`` pixels, with the usual ImageNet mean and std."""
    return Spec(
        image=Field("image", (3, size, size), torch.uint8, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    )
