"""The range of deep integers: which of the integers in 12 or 16 bit pictures become black and white."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sslcli.data.base import Dataset
from sslcli.data.pictures.reading import Reading
from sslcli.data.selection import drawn
from sslcli.errors import UserError

KEY = "dataset.range"
MEASURED = 256  # pictures of which the range is measured
_CLIPPED = 1e-4  # share of the numbers that may lie above or below the range: a few hot pixels do not darken all others

Levels = tuple[float, float]


@dataclass(frozen=True)
class MeasuredLevels:
    """The range of a dataset's deep integers, and where it is from."""

    levels: Levels
    source: str  # for people


def measured_levels(dataset: Dataset) -> MeasuredLevels | None:
    """Measure the range on at most 256 pictures of the training part, drawn with a fixed seed.

    None if the pictures that were looked at when the dataset was opened are all of bytes, or of floats.
    """
    reading = reading_of(dataset)
    if reading is None or not reading.deep or reading.floats:
        return None
    index = drawn(len(dataset), MEASURED).sort().values
    values = dataset.deep_values(index)
    if not len(values):
        return None
    lowest, highest = values.min(), values.max()
    found = f"{lowest:,} to {highest:,} in {len(index):,} of {len(dataset):,} training pictures"
    return MeasuredLevels(levels_of(values), found)


def levels_of(values: np.ndarray) -> Levels:
    """Return the numbers that become black and white: from 0 to all bits that are in use, or from lowest to highest.

    12 bits that are stored in 16 are 0 to 4,095, whatever the brightest picture reaches. Where numbers are negative,
    as in computed tomography, there is no such scale, and the range is that of the numbers. One in 10,000 numbers may
    lie beyond the range.
    """
    low, high = (int(value) for value in np.quantile(values, (_CLIPPED, 1 - _CLIPPED), method="inverted_cdf"))
    if low >= 0:
        return 0.0, 2.0 ** max(1, high.bit_length()) - 1
    return float(low), float(max(high, low + 1))


def reading_of(dataset: Dataset) -> Reading | None:
    """Return how the pictures of a dataset are read; None if it does not decode pictures."""
    found = getattr(dataset, "reading", None)
    return found if isinstance(found, Reading) else None


def apply_levels(dataset: Dataset, levels: Levels) -> None:
    """Let a dataset and its held-out part have this range.

    Raises:
        UserError: the dataset does not decode pictures.
    """
    for part in (dataset, dataset.held_out):
        if part is None:
            continue
        reading = reading_of(part)
        if reading is None:
            raise UserError(f"{KEY}: these data are not decoded from pictures. Leave it out.")
        reading.levels = levels
        part.spec = part.spec.having("image", replace(part.spec["image"], levels=levels))
