"""Chooses the windows of crops and of random erasing, on the host, where the sizes of all images are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Window = tuple[int, int, int, int]  # top, left, height and width in pixels

TRIES = 10  # as in torchvision
NUMBERS = 2 * TRIES + 2  # uniform random numbers for one rectangle


def random_windows(
    uniform: np.ndarray, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Return the windows (B, 4) int64 of RandomResizedCrop in an image of this size, from uniforms (B, 22).

    As in torchvision, the share of the area is uniform in ``scale`` and the aspect ratio (width to height) is
    log-uniform in ``ratio``. The first of ten tries that fits into the image is used; if none fits, the largest
    centred window with an allowed ratio.
    """
    h, w = _sides(uniform, height * width, scale, ratio)
    fits = (w > 0) & (h > 0) & (w <= width) & (h <= height)
    limit = min(max(width / height, ratio[0]), ratio[1])
    widest = max(1, min(width, round(height * limit)))
    tallest = max(1, min(height, round(width / limit)))
    found = fits.any(1)
    h, w = np.where(found, _first(h, fits), tallest), np.where(found, _first(w, fits), widest)
    top, left = _top_left(uniform, height - h, width - w)
    top, left = np.where(found, top, (height - h) // 2), np.where(found, left, (width - w) // 2)
    return np.stack([top, left, h, w], 1).astype(np.int64)


def random_rectangles(
    uniform: np.ndarray, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Return the rectangles (B, 4) int64 of RandomErasing (Zhong et al. 2017), from uniforms (B, 22).

    As in torchvision, the share of the area is uniform in ``scale`` and the ratio (height to width) is log-uniform in
    ``ratio``. The first of ten tries whose sides are both shorter than the image's is used; if there is none, the
    rectangle is empty.
    """
    w, h = _sides(uniform, height * width, scale, ratio)
    fits = (w < width) & (h < height)
    found = fits.any(1)
    h, w = np.where(found, _first(h, fits), 0), np.where(found, _first(w, fits), 0)
    return np.stack([*_top_left(uniform, height - h, width - w), h, w], 1).astype(np.int64)


def _sides(
    uniform: np.ndarray, pixels: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return sqrt(area / ratio) and sqrt(area * ratio), rounded, of every try: (B, 10) each."""
    tries = uniform[:, : 2 * TRIES].reshape(-1, TRIES, 2).astype(np.float64)
    area = pixels * (scale[0] + (scale[1] - scale[0]) * tries[..., 0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = np.exp(low + (high - low) * tries[..., 1])
    return np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))


def _first(tries: np.ndarray, fits: np.ndarray) -> np.ndarray:
    return tries[np.arange(len(tries)), fits.argmax(1)]


def _top_left(uniform: np.ndarray, max_top: np.ndarray, max_left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return top and left (B,), uniform integers from 0 to ``max_top`` and ``max_left``."""
    position = uniform[:, 2 * TRIES :].astype(np.float64)
    return np.floor(position[:, 0] * (max_top + 1)), np.floor(position[:, 1] * (max_left + 1))


@dataclass(frozen=True)
class RandomCrops:
    """The random crops of one batch; implements the protocol ``sslcli.types.Crops``."""

    sizes: tuple[tuple[int, int], ...]  # height and width of each view
    numbers: tuple[np.ndarray, ...]  # uniforms (B, 22) of each view
    bounds: tuple[tuple[tuple[float, float], tuple[float, float]], ...]  # scale and ratio of each view

    def windows(self, row: int, height: int, width: int) -> list[Window]:
        """Return each view's window in image ``row``, which has ``height`` x ``width`` pixels."""
        found = []
        for numbers, (scale, ratio) in zip(self.numbers, self.bounds):
            top, left, h, w = random_windows(numbers[row : row + 1], height, width, scale, ratio)[0].tolist()
            found.append((top, left, h, w))
        return found
