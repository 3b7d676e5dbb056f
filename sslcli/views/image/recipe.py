"""The numbers of one view: what is done to it, how often and how strongly; and what chance then chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from sslcli.config.instantiate import build
from sslcli.randomness import Randomness, to_device
from sslcli.views.image.colour import colour_change, gray_change
from sslcli.views.image.windows import NUMBERS, random_rectangles, random_windows

A = TypeVar("A", np.ndarray, Tensor)


@dataclass(frozen=True)
class Chosen(Generic[A]):
    """The parameters of one view of every sample, (B, ...) float32 each: on the host, or sent to a device."""

    window: A  # (B, 4) top, left, height, width in pixels of the image
    flip: A  # (B,) 1 or 0, like solarise
    sigma: A  # (B,) of the blur in pixels of the view; 0 is none
    degrees: A  # (B,) counter-clockwise
    colour: A  # (B, n) as ``recolour`` takes it; n is 0 for no change of colour at all
    solarise: A  # (B,)
    erase: A  # (B, 4) top, left, height, width in pixels of the view

    def part(self, which: slice) -> Chosen[A]:
        """The same for some samples."""
        return Chosen(*(getattr(self, field.name)[which] for field in fields(self)))


def still(count: int, height: int, width: int) -> Chosen[np.ndarray]:
    """Nothing done to ``count`` images of ``height`` x ``width`` but to resize them whole."""
    zero, four = np.zeros(count, np.float32), np.zeros((count, 4), np.float32)
    whole = np.tile(np.array((0, 0, height, width), np.float32), (count, 1))
    return Chosen(whole, zero, zero, zero, np.zeros((count, 0), np.float32), zero, four)


def sent(chosen: Chosen[np.ndarray], device: torch.device) -> Chosen[Tensor]:
    """All in one copy, for which nobody waits."""
    arrays = [getattr(chosen, field.name) for field in fields(chosen)]
    flat = np.concatenate([array.reshape(len(array), -1) for array in arrays], 1)
    widths = [array[0].size if len(array) else 1 for array in arrays]
    columns = to_device(torch.from_numpy(flat), device).split(widths, 1)
    return Chosen(*(c if array.ndim > 1 else c[:, 0] for c, array in zip(columns, arrays)))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What ``ImageViews`` does to one view, in this order; every number off by default. Its docstring explains each.

    Raises:
        ValueError: a number out of its range.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    rotate: float = 0.0
    degrees: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray: float = 0.0
    solarise: float = 0.0
    erase: float = 0.0
    erase_scale: tuple[float, float] = (0.02, 0.33)
    erase_ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self) -> None:
        for name in ("flip", "blur", "rotate", "jitter", "gray", "solarise", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not a probability; give a number from 0 to 1")
        for name in ("brightness", "contrast", "saturation", "degrees"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        for name in ("scale", "erase_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name}={[low, high]} must be two shares with 0 < from <= to <= 1")
        for name in ("ratio", "erase_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}={[low, high]} must be two positive numbers, the smaller first")
        if not 0 <= self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma={list(self.blur_sigma)} must be two numbers, the smaller first")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue={self.hue} must be from 0 to 0.5 turns")

    def changed(self, difference: Mapping[str, Any] | None, where: str) -> Recipe:
        """The recipe with some numbers replaced.

        Raises:
            UserError: an unknown name or a wrong value, with its config path under ``where``.
        """
        target = f"{Recipe.__module__}.{Recipe.__qualname__}"
        return build({"_target_": target, **asdict(self), **(difference or {})}, Recipe, where=where)

    @property
    def crops(self) -> bool:
        """Whether crops are random."""
        return not (tuple(self.scale) == (1.0, 1.0) and self.ratio[0] == self.ratio[1])

    @property
    def recolours(self) -> bool:
        """Whether it changes colours, other than by inverting them."""
        return bool(self.jitter or self.gray)

    def crop_numbers(self, randomness: Randomness, name: str) -> np.ndarray:
        """(B, 22) uniforms that choose the windows of view ``name``."""
        return randomness.numbers(f"{name} crop", NUMBERS)

    def choose(
        self, randomness: Randomness, name: str, source: tuple[int, int] | None, view: tuple[int, int], channels: int,
        pixel: float,
    ) -> Chosen[np.ndarray]:  # fmt: skip
        """The parameters of view ``name``.

        Args:
            randomness: of the step.
            name: of the view, which keeps its numbers apart from other views'.
            source: height and width of the images; null where they are cut to the view's size already.
            view: height and width of the view.
            channels: of the images.
            pixel: what ``blur_sigma`` calls a pixel, in pixels of the view.
        """
        u = randomness.numbers(name, 13).T
        if source is None:
            window = np.tile((0, 0, *view), (u.shape[1], 1))
        else:
            window = random_windows(self.crop_numbers(randomness, name), *source, self.scale, self.ratio)
        low, high = self.blur_sigma
        erase = np.zeros((u.shape[1], 4))
        if self.erase:
            uniform = randomness.numbers(f"{name} erase", NUMBERS)
            erase = random_rectangles(uniform, *view, self.erase_scale, self.erase_ratio)
            erase = erase * (u[12] < self.erase)[:, None]
        return Chosen(
            window.astype(np.float32),
            (u[0] < self.flip).astype(np.float32),
            np.where(u[1] < self.blur, pixel * (low + (high - low) * u[2]), 0).astype(np.float32),
            np.where(u[3] < self.rotate, self.degrees * (2 * u[4] - 1), 0).astype(np.float32),
            self._colour(u[5:11], channels),
            (u[11] < self.solarise).astype(np.float32),
            erase.astype(np.float32),
        )

    def _colour(self, u: np.ndarray, channels: int) -> np.ndarray:
        """As ``recolour`` takes it, from uniforms (6, B)."""
        if not self.recolours:
            return np.zeros((u.shape[1], 0), np.float32)
        on = u[0] < self.jitter

        def factor(uniform: np.ndarray, strength: float) -> np.ndarray:
            low = max(0.0, 1 - strength)
            return np.where(on, low + (1 + strength - low) * uniform.astype(np.float64), 1.0)

        brightness, contrast = factor(u[1], self.brightness), factor(u[2], self.contrast)
        if channels == 1:
            return gray_change(brightness, contrast)
        hue = np.where(on, self.hue * (2 * u[4].astype(np.float64) - 1), 0.0)
        return colour_change(brightness, contrast, factor(u[3], self.saturation), hue, u[5] < self.gray)
