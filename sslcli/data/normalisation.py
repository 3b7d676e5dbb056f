"""Mean and standard deviation of a dataset's pictures: measured on its training part, or replaced by given ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sslcli.data.base import Dataset
from sslcli.data.corrupt import READABLE, CorruptFlagged
from sslcli.data.dataloading import in_pieces
from sslcli.data.selection import drawn
from sslcli.errors import UserError
from sslcli.run_dir.normalisation import Normalisation
from sslcli.types import Field

SAMPLES = 20_000  # pictures that are measured; the mean is then known to about 0.002
KEY = "dataset.normalise"


def image_columns(dataset: Dataset) -> list[str]:
    """Return the names of the columns of pictures."""
    return [name for name, field in dataset.spec.items() if field.kind == "image"]


def image_column(dataset: Dataset) -> str:
    """Return the name of the only column of pictures.

    Raises:
        UserError: there is none, or there are several.
    """
    names = image_columns(dataset)
    if len(names) != 1:
        raise UserError(f"{KEY}: these data have {len(names)} columns of pictures, and it is for one. Use null.")
    return names[0]


def unit_of(field: Field) -> float:
    """Return the factor before normalisation: bytes become numbers in [0, 1]."""
    return 1 / 255 if field.dtype == torch.uint8 else 1.0


def given(dataset: Dataset, mean: float | Sequence[float], std: float | Sequence[float], source: str) -> Normalisation:
    """Return the given numbers, of all channels or of each.

    Raises:
        UserError: the pictures have another number of channels.
    """
    field = dataset.spec[image_column(dataset)]
    channels = field.shape[0]
    numbers = [(float(v),) * channels if isinstance(v, (int, float)) else tuple(map(float, v)) for v in (mean, std)]
    for name, values in zip(("mean", "std"), numbers):
        if len(values) != channels:
            raise UserError(f"{KEY}: {name} has {len(values)} numbers, and the pictures have {channels} channels.")
    return Normalisation(numbers[0], numbers[1], source, unit_of(field))


def applied(dataset: Dataset, numbers: Normalisation) -> None:
    """Let a dataset and its held-out part have these numbers."""
    name = image_column(dataset)
    for part in (dataset, dataset.held_out):
        if part is not None:
            part.spec = part.spec.having(name, replace(part.spec[name], mean=numbers.mean, std=numbers.std))


def measured(dataset: Dataset, workers: int | None) -> Normalisation:
    """Measure the pictures of the training part: all that are in memory, else at most 20,000 drawn with a fixed seed.

    Sums over pixels are exact for bytes, and of float64 else. Pictures that cannot be read are left out.

    Raises:
        UserError: a channel is the same everywhere, or has values that are not finite.
    """
    name = image_column(dataset)
    field = dataset.spec[name]
    all_of_them = dataset.in_memory or len(dataset) <= SAMPLES
    index = torch.arange(len(dataset)) if all_of_them else drawn(len(dataset), SAMPLES).sort().values
    sums = ByteSums(field.shape[0]) if field.dtype == torch.uint8 else FloatSums(field.shape[0])
    count = 0
    for columns, _ in in_pieces(CorruptFlagged(dataset), index, workers):
        pictures = columns[name][columns[READABLE]]
        count += len(pictures)
        sums.add(pictures)
    mean, std = sums.result()
    for channel, value in enumerate(std):
        if not value > 0 or not math.isfinite(value):
            raise UserError(
                f"{KEY}: channel {channel} has the standard deviation {value} in {count:,} pictures, by which nothing "
                f"can be divided. Give numbers: {KEY}=[mean,std]"
            )
    return Normalisation(mean, std, f"measured on {count:,} of {len(dataset):,} training pictures", unit_of(field))


class ByteSums:
    """Counts the values of bytes in each channel, from which mean and deviation of pixels in [0, 1] follow exactly."""

    def __init__(self, channels: int) -> None:
        self.counts = torch.zeros(channels, 256, dtype=torch.int64)

    def add(self, pictures: Tensor) -> None:
        """Count (B, C, H, W)."""
        for channel, counts in enumerate(self.counts):
            counts += torch.bincount(pictures[:, channel].flatten(), minlength=256)

    def result(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel; whole numbers are summed without any rounding."""
        mean, std = [], []
        for counts in self.counts.tolist():
            number = sum(counts)
            total = sum(value * count for value, count in enumerate(counts))
            squares = sum(value**2 * count for value, count in enumerate(counts))
            mean.append(total / (255 * max(number, 1)))
            std.append(math.sqrt((number * squares - total**2) / (255 * max(number, 1)) ** 2))
        return tuple(mean), tuple(std)


class FloatSums:
    """Joins mean and squared deviations of pieces in float64 (Chan, Golub and LeVeque 1979)."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean, self.squares = (torch.zeros(channels, dtype=torch.float64) for _ in range(2))

    def add(self, pictures: Tensor) -> None:
        """Add (B, C, H, W)."""
        for picture in pictures:  # one at a time, as float64 takes much memory
            pixels = picture.double().flatten(1)
            number, mean = pixels.shape[1], pixels.mean(1)
            difference, both = mean - self.mean, self.count + number
            self.squares += (pixels - mean[:, None]).square().sum(1) + difference**2 * (self.count * number / both)
            self.mean += difference * (number / both)
            self.count = both

    def result(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel."""
        return tuple(self.mean.tolist()), tuple((self.squares / max(self.count, 1)).sqrt().tolist())
