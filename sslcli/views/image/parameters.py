"""Draws the augmentation parameters of each sample on the host, and copies them to the images' device."""

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
    """Augmentation parameters of one view for every sample, float32 (B, ...), on the host or on a device."""

    window: A  # (B, 4) top, left, height, width in pixels of the image
    flip: A  # (B,) 1 or 0, like solarise
    sigma: A  # (B,) standard deviation of the blur in pixels of the view; 0 for no blur
    degrees: A  # (B,) counter-clockwise
    colour: A  # (B, n), the argument of ``recolour``; n is 0 if no sample changes colours
    solarise: A  # (B,)
    erase: A  # (B, 4) top, left, height, width in pixels of the view
    kept: A  # (B, C) 1 or 0: which channels are not dropped; C is 0 if none of any sample is

    def part(self, which: slice) -> Parameters[A]:
        """Return the parameters of some samples."""
        return Parameters(*(getattr(self, field.name)[which] for field in fields(self)))


def whole_images(count: int, size: Size) -> Parameters[np.ndarray]:
    """Return parameters for ``count`` images of ``size`` that are only resized."""
    zero, four = np.zeros(count, np.float32), np.zeros((count, 4), np.float32)
    window = np.tile(np.array((0, 0, *size), np.float32), (count, 1))
    none = np.zeros((count, 0), np.float32)
    return Parameters(window, zero, zero, zero, none, zero, four, none)


def without_blur(parameters: Parameters[np.ndarray]) -> Parameters[np.ndarray]:
    """Return the same parameters without blur."""
    return replace(parameters, sigma=np.zeros_like(parameters.sigma))


def sent(parameters: Parameters[np.ndarray], device: torch.device) -> Parameters[Tensor]:
    """Copy the parameters to ``device`` with a single copy, without making the host wait."""
    arrays = [getattr(parameters, field.name) for field in fields(parameters)]
    flat = np.concatenate([array.reshape(len(array), -1) for array in arrays], 1)
    widths = [array[0].size if len(array) else 1 for array in arrays]
    columns = to_device(torch.from_numpy(flat), device).split(widths, 1)
    return Parameters(*(c if array.ndim > 1 else c[:, 0] for c, array in zip(columns, arrays)))


def crop_numbers(randomness: Randomness, name: str) -> np.ndarray:
    """Draw the uniforms (B, 22) that determine the crop windows of view ``name``, on the device or in workers."""
    return randomness.numbers(f"{name} crop", NUMBERS)


def draw(
    recipe: Recipe, randomness: Randomness, name: str, source: Size | None, view: Size, channels: int, pixel: float
) -> Parameters[np.ndarray]:
    """Draw the parameters of view ``name``.

    Args:
        recipe: the recipe of the view.
        randomness: the random numbers of the step.
        name: the name of the view's random stream.
        source: size of the images; None if they are crops of the view's size already.
        view: size of the view.
        channels: number of channels of the images.
        pixel: the unit of ``blur_sigma`` in pixels of the view.
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
        _draw_kept(recipe, randomness, name, channels),
    )


def _draw_kept(recipe: Recipe, randomness: Randomness, name: str, channels: int) -> np.ndarray:
    """Draw which channels are kept; where all would be dropped, the one with the largest number stays."""
    if not recipe.channel_drop:
        return np.zeros((len(randomness.positions), 0), np.float32)
    u = randomness.numbers(f"{name} channels", channels)
    return ((u >= recipe.channel_drop) | (u == u.max(1, keepdims=True))).astype(np.float32)


def _draw_colour(recipe: Recipe, u: np.ndarray, channels: int) -> np.ndarray:
    """Compute the argument of ``recolour`` from uniforms (6, B)."""
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
