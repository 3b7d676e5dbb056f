"""How the numbers in the files of pictures become those of the column ``image``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from sslcli.data.pictures.opening import BadPicture
from sslcli.types import Field, Spec

COLOURS = 3  # channels of a picture without ``dataset.channels``: red, green, blue
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # the mean and std of most published weights


@dataclass
class Reading:
    """What is read of each picture of a dataset. All parts of the dataset share it, and ``levels`` may be set later."""

    channels: int = COLOURS
    floats: bool = False  # numbers as they are in the files, float32; else bytes
    deep: bool = False  # whether integers of more than 8 bits are among the pictures that were looked at
    levels: tuple[float, float] | None = None  # the deep integers that become 0 and 255
    max_pixels: int | None = None  # more in a picture are refused by its header; None: twice Pillow's MAX_IMAGE_PIXELS

    def allow_pixels(self) -> None:
        """Let Pillow open pictures of as many pixels as are allowed, in this process."""
        if self.max_pixels is not None and Image.MAX_IMAGE_PIXELS is not None:
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, self.max_pixels // 2 + 1)  # it refuses twice as many

    def check_pixels(self, width: int, height: int) -> None:
        """Raise BadPicture if a picture of this size has more pixels than are allowed."""
        if self.max_pixels is not None and width * height > self.max_pixels:
            raise BadPicture(f"{width:,} x {height:,} pixels are more than dataset.max_pixels={self.max_pixels}")

    @property
    def of_colours(self) -> bool:
        """Whether pictures are red, green and blue bytes, as they are shown."""
        return self.channels == COLOURS and not self.floats

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the column."""
        return torch.float32 if self.floats else torch.uint8

    def spec(self, size: int) -> Spec:
        """Return the spec of pictures of ``size`` x ``size`` pixels; colours have ImageNet's mean and std."""
        mean, std = IMAGENET if self.of_colours else ((), ())
        return Spec(image=Field("image", (self.channels, size, size), self.dtype, mean=mean, std=std))

    def to_bytes(self, values: np.ndarray) -> np.ndarray:
        """Convert deep integers to uint8 by ``levels``; without these, the high byte of 16 bits is kept."""
        if self.levels is None:
            return (values.astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        low, high = self.levels
        return np.rint((values.astype(np.float64) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


RGB = Reading()
