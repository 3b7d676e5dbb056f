"""A dataset of pictures that are decoded when they are fetched, from folders, tars or tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import CorruptSample, CorruptSamples, Dataset, Notes
from sslcli.data.fingerprints import LIMIT
from sslcli.data.pictures.decode import decode, decode_crops
from sslcli.data.pictures.look import deep_values_of, look
from sslcli.data.pictures.opening import BadPicture, Source
from sslcli.data.ram_cache import shared_bytes
from sslcli.types import Crops

Crop = Literal["device", "worker"]


class EncodedPictures(Protocol):
    """N encoded pictures that can be read one by one, in any order and in any process."""

    @property
    def labels(self) -> Tensor | None:
        """The labels (N,) int64, -1 for pictures without one; None if no picture has a label."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes by label; () if no picture has a label."""

    @property
    def notes(self) -> Notes:
        """What was found and left out, for the start lines."""

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
        channels: channels of each picture; None is three, to which grey and transparent pictures are converted.
    """

    decodes = True

    def __init__(self, encoded: EncodedPictures, size: int, crop: Crop = "device", channels: int | None = None) -> None:
        if size < 1:
            raise ValueError(f"size={size} must be at least 1 pixel")
        if channels is not None and channels < 1:
            raise ValueError(f"channels={channels} must be at least 1")
        self.encoded, self.size = encoded, size
        self.cuts_crops = crop == "worker"
        self.labels, self.classes, self.notes = encoded.labels, encoded.classes, encoded.notes
        self.reading = look(encoded, channels)
        self.spec = self.reading.spec(size)
        self.has_own_scale = not self.reading.of_colours
        self._verified: np.ndarray | None = shared_bytes(len(encoded), 1)[:, 0]  # whether each has been verified

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_verified": None}

    def __len__(self) -> int:
        return len(self.encoded)

    def fingerprint(self, limit: int = LIMIT) -> str:
        return self.encoded.fingerprint(limit)

    def old_fingerprint(self) -> str:
        return self.encoded.old_fingerprint()

    def name_of(self, i: int) -> str:
        return self.encoded.where(i)

    def deep_values(self, index: Tensor) -> np.ndarray:
        return deep_values_of(self.encoded, index, self.reading)

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        def read(row: int, source: Source, verify: bool) -> list[Tensor]:
            return [decode(source, self.size, self.reading, verify=verify)]

        return {"image": self._read(index, read, [(self.size, self.size)])[0]}

    def fetch_crops(self, index: Tensor, crops: Crops) -> dict[str, Tensor]:
        def read(row: int, source: Source, verify: bool) -> list[Tensor]:
            return decode_crops(source, lambda h, w: crops.windows(row, h, w), crops.sizes, self.reading, verify=verify)

        return {f"image/{k}": column for k, column in enumerate(self._read(index, read, crops.sizes))}

    def _read(
        self, index: Tensor, read: Callable[[int, Source, bool], list[Tensor]], sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Return a column (B, C, *size) for each size.

        Raises:
            CorruptSamples: some pictures are corrupt; all others have been tried, too.
        """
        reading = self.reading
        columns = [torch.empty(len(index), reading.channels, *size, dtype=reading.dtype) for size in sizes]
        bad = {}
        for row, i in enumerate(index.tolist()):
            try:
                verify = self._verified is None or not self._verified[i]
                for column, pixels in zip(columns, read(row, self.encoded.source(i), verify)):
                    column[row] = pixels
            except BadPicture as error:
                bad[row] = CorruptSample(self.encoded.where(i), str(error))
            else:
                if self._verified is not None:
                    self._verified[i] = 1
        if bad:
            raise CorruptSamples(bad)
        return columns
