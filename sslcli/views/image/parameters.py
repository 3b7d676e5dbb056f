"""What is done to each sample of one view: drawn from a recipe on the host, then sent to the images' device."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from sslcli.randomness import Randomness, to_device
from sslcli.views.image.colour import colour_change, gray_change
from sslcli.views.image.recipe import Recipe
from sslcli.views.image.windows import NUMBERS, random_rectangles, random_windows

A = TypeVar("A", np.ndarray, Tensor)
Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class Parameters(Generic[A]):
    """The parameters of one view of every sample, (B, ...) float32 each: on the host, or sent to a device."""

    window: A  # (B, 4) top, left, height, width in pixels of the image
    flip: A  # (B,) 1 or 0, like solarise
    sigma: A  # (B,) of the blur in pixels of the view; 0 is none
    degrees: A  # (B,) counter-clockwise
    colour: A  # (B, n) as ``recolour`` takes it; n is 0 for no change of colour at all
    solarise: A  # (B,)
    erase: A  # (B, 4) top, left, height, width in pixels of the view

    def part(self, which: slice) -> Parameters[A]:
        """The same for some samples."""
        return Parameters(*(getattr(self, field.name)[which] for field in fields(self)))


def whole_images(count: int, size: Size) -> Parameters[np.ndarray]:
    """Nothing is done to ``count`` images of ``size`` but to resize them whole."""
    zero, four = np.zeros(count, np.float32), np.zeros((count, 4), np.float32)
    window = np.tile(np.array((0, 0, *size), np.float32), (count, 1))
    return Parameters(window, zero, zero, zero, np.zeros((count, 0), np.float32), zero, four)


def without_blur(parameters: Parameters[np.ndarray]) -> Parameters[np.ndarray]:
    """The same geometry, sharp."""
    return replace(parameters, sigma=np.zeros_like(parameters.sigma))


def sent(parameters: Parameters[np.ndarray], device: torch.device) -> Parameters[Tensor]:
    """The parameters on ``device``: all in one copy, for which nobody waits."""
    arrays = [getattr(parameters, field.name) for field in fields(parameters)]
    flat = np.concatenate([array.reshape(len(array), -1) for array in arrays], 1)
    widths = [array[0].size if len(array) else 1 for array in arrays]
    columns = to_device(torch.from_numpy(flat), device).split(widths, 1)
    return Parameters(*(c if array.ndim > 1 else c[:, 0] for c, array in zip(columns, arrays)))


def crop_numbers(randomness: Randomness, name: str) -> np.ndarray:
    """(B, 22) uniforms that choose the windows of view ``name``, whoever cuts them out."""
    return randomness.numbers(f"{name} crop", NUMBERS)


def draw(
    recipe: Recipe, randomness: Randomness, name: str, source: Size | None, view: Size, channels: int, pixel: float
) -> Parameters[np.ndarray]:
    """The parameters of view ``name``.

    Args:
        recipe: of the view.
        randomness: of the step.
        name: of the view, which keeps its numbers apart from other views'.
        source: size of the images; null where they are cut to the view's size already.
        view: size of the view.
        channels: of the images.
        pixel: what ``blur_sigma`` calls a pixel, in pixels of the view.
    """
    u = randomness.numbers(name, 13).T
    if source is None:
        window = np.tile((0, 0, *view), (u.shape[1], 1))
    else:
        window = random_windows(crop_numbers(randomness, name), *source, recipe.scale, recipe.ratio)
    low, high = recipe.blur_sigma
    erase = np.zeros((u.shape[1], 4))
    if recipe.erase:
        uniform = randomness.numbers(f"{name} erase", NUMBERS)
        erase = random_rectangles(uniform, *view, recipe.erase_scale, recipe.erase_ratio)
        erase = erase * (u[12] < recipe.erase)[:, None]
    return Parameters(
        window.astype(np.float32),
        (u[0] < recipe.flip).astype(np.float32),
        np.where(u[1] < recipe.blur, pixel * (low + (high - low) * u[2]), 0).astype(np.float32),
        np.where(u[3] < recipe.rotate, recipe.degrees * (2 * u[4] - 1), 0).astype(np.float32),
        _draw_colour(recipe, u[5:11], channels),
        (u[11] < recipe.solarise).astype(np.float32),
        erase.astype(np.float32),
    )


def _draw_colour(recipe: Recipe, u: np.ndarray, channels: int) -> np.ndarray:
    """As ``recolour`` takes it, from uniforms (6, B)."""
    if not recipe.recolours:
        return np.zeros((u.shape[1], 0), np.float32)
    jittered = u[0] < recipe.jitter

    def factor(uniform: np.ndarray, strength: float) -> np.ndarray:
        low = max(0.0, 1 - strength)
        return np.where(jittered, low + (1 + strength - low) * uniform.astype(np.float64), 1.0)

    brightness, contrast = factor(u[1], recipe.brightness), factor(u[2], recipe.contrast)
    if channels == 1:
        return gray_change(brightness, contrast)
    hue = np.where(jittered, recipe.hue * (2 * u[4].astype(np.float64) - 1), 0.0)
    return colour_change(brightness, contrast, factor(u[3], recipe.saturation), hue, u[5] < recipe.gray)
