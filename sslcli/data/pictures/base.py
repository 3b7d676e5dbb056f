"""Pictures decoded on demand, wherever their files lie: in folders, in tars, in tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from sslcli.data.base import CorruptSample, CorruptSamples, Dataset
from sslcli.data.pictures.decode import BadPicture, Source, decode, decode_crops
from sslcli.types import Crops, Field, Spec

Crop = Literal["device", "worker"]


class EncodedPictures(Protocol):
    """N encoded pictures that can be had one by one, in any order and in any process."""

    @property
    def labels(self) -> Tensor | None:
        """(N,) int64, -1 where one has none."""

    def __len__(self) -> int: ...

    def source(self, i: int) -> Source:
        """The i-th picture's content, or the path of its file.

        Raises:
            BadPicture: it cannot be had.
        """

    def where(self, i: int) -> str:
        """The i-th picture's place, for messages."""

    def fingerprint(self) -> str:
        """Changes where the pictures or their order are others."""


class Pictures(Dataset):
    """The centred square of each picture, resized to ``size``; or the windows that training asks for.

    Args:
        encoded: the pictures.
        size: pixels a side.
        crop: ``worker`` cuts training crops out of the full pictures, ``device`` leaves that to the views.
    """

    decodes = True

    def __init__(self, encoded: EncodedPictures, size: int, crop: Crop = "device") -> None:
        if size < 1:
            raise ValueError(f"size={size} must be at least 1 pixel")
        self.encoded, self.size = encoded, size
        self.cuts_crops = crop == "worker"
        self.labels = encoded.labels
        self.spec = rgb(size)

    def __len__(self) -> int:
        return len(self.encoded)

    def fingerprint(self) -> str:
        return self.encoded.fingerprint()

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
        """One column (B, 3, *size) for each size; every row is tried before the bad ones are told."""
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
    """Colour pictures of ``size`` x ``size``, normalised by the statistics of ImageNet as everywhere."""
    return Spec(image=Field(shape=(3, size, size), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
