"""Where a crop lies, and where a rectangle is erased: chosen on the host, where the sizes of all images are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Window = tuple[int, int, int, int]  # top, left, height and width in pixels

TRIES = 10  # as in torchvision
NUMBERS = 2 * TRIES + 2  # uniforms that one rectangle takes


def random_windows(
    uniform: np.ndarray, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """The windows (B, 4) of RandomResizedCrop, whole numbers, in an image of this size, from uniforms (B, 22).

    As torchvision: the area is uniform in ``scale`` of the image, the aspect ratio (width to height)
    log-uniform in ``ratio``; of ten tries the first that fits counts, else the largest centred window of a
    legal ratio.
    """
    h, w = _sides(uniform, height * width, scale, ratio)
    fits = (w > 0) & (h > 0) & (w <= width) & (h <= height)
    limit = min(max(width / height, ratio[0]), ratio[1])
    widest = max(1, min(width, round(height * limit)))
    tallest = max(1, min(height, round(width / limit)))
    found = fits.any(1)
    h, w = np.where(found, _first(h, fits), tallest), np.where(found, _first(w, fits), widest)
    top, left = _places(uniform, height - h, width - w)
    top, left = np.where(found, top, (height - h) // 2), np.where(found, left, (width - w) // 2)
    return np.stack([top, left, h, w], 1).astype(np.int64)


def random_rectangles(
    uniform: np.ndarray, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """The rectangles (B, 4) of RandomErasing (Zhong et al. 2017), from uniforms (B, 22).

    As torchvision: shares of the area and ratios (height to width) as for windows, both sides shorter than
    the image's; where none of ten tries is, the rectangle has no pixels.
    """
    w, h = _sides(uniform, height * width, scale, ratio)
    fits = (w < width) & (h < height)
    found = fits.any(1)
    h, w = np.where(found, _first(h, fits), 0), np.where(found, _first(w, fits), 0)
    return np.stack([*_places(uniform, height - h, width - w), h, w], 1).astype(np.int64)


def _sides(
    uniform: np.ndarray, pixels: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """(B, 10) each: the shorter and the longer side of every try, where the ratio is above one."""
    tries = uniform[:, : 2 * TRIES].reshape(-1, TRIES, 2).astype(np.float64)
    area = pixels * (scale[0] + (scale[1] - scale[0]) * tries[..., 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = np.exp(low + (high - low) * tries[..., 1])
    return np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))


def _first(tries: np.ndarray, fits: np.ndarray) -> np.ndarray:
    return tries[np.arange(len(tries)), fits.argmax(1)]


def _places(uniform: np.ndarray, down: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Top and left (B,), uniform over the places from 0 to ``down`` and ``right``."""
    place = uniform[:, 2 * TRIES :].astype(np.float64)
    return np.floor(place[:, 0] * (down + 1)), np.floor(place[:, 1] * (right + 1))


@dataclass(frozen=True)
class RandomCrops:
    """The crops of one batch, for whoever holds the full images; the protocol ``sslcli.types.Crops``."""

    sizes: tuple[tuple[int, int], ...]  # height and width of each view
    numbers: tuple[np.ndarray, ...]  # (B, 22) uniforms of each view
    bounds: tuple[tuple[tuple[float, float], tuple[float, float]], ...]  # scale and ratio of each view

    def windows(self, row: int, height: int, width: int) -> list[Window]:
        """Top, left, height and width of each view's window in the image of ``height`` x ``width`` at ``row``."""
        found = []
        for numbers, (scale, ratio) in zip(self.numbers, self.bounds):
            top, left, h, w = random_windows(numbers[row : row + 1], height, width, scale, ratio)[0].tolist()
            found.append((top, left, h, w))
        return found
