"""Pictures in Python, PIL images and NumPy arrays, as the column of numbers that an encoder was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sslcli.data.pictures.colours import deep_to_rgb, pixels_of, to_rgb
from sslcli.data.pictures.opening import BadPicture, reasons
from sslcli.data.pictures.orientation import Turn
from sslcli.data.pictures.reading import COLOURS, Reading
from sslcli.data.pictures.windows import centred
from sslcli.errors import UserError
from sslcli.run_dir.fitted import Fitted
from sslcli.types import Field

_GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as Pillow weighs them (ITU-R 601)


def read_pictures(samples: Any, name: str, column: Field, fitted: Fitted) -> Tensor:
    """Convert pictures to (B, C, H, W), floats in [0, 1] where the column has pixels, as the run's data have them.

    Args:
        samples: a PIL image, an array (H, W), (H, W, C) or (B, H, W, C), or a list of images and arrays.
        name: the column's name.
        column: the column as the dataset has it.
        fitted: what was fitted on the run's data; of pictures, the column knows it already.

    Raises:
        UserError: a picture has other channels, numbers outside [0, 1], or cannot be read.
    """
    is_batch = isinstance(samples, np.ndarray) and samples.ndim == 4
    pictures: Sequence[Any] = samples if is_batch or isinstance(samples, (list, tuple)) else [samples]
    if not len(pictures):
        raise UserError("no pictures: the list is empty")
    return torch.stack([_picture(picture, column, number) for number, picture in enumerate(pictures)])


def _picture(picture: Any, column: Field, number: int) -> Tensor:
    try:
        with reasons():
            numbers, turn = _numbers(picture, column)
            _, height, width = column.shape
            cut = centred(numbers, (height, width), turn)
    except BadPicture as error:
        raise UserError(f"picture {number}: {error}") from None
    return cut.float().div_(255) if cut.dtype == torch.uint8 and column.is_pixels else cut.float()


def _numbers(picture: Any, column: Field) -> tuple[Tensor, Turn]:
    """Return the numbers (C, H, W) of one picture, uint8 or floats, as they are stored, and its orientation."""
    channels = column.shape[0]
    is_shown = column.is_pixels and channels in (1, COLOURS)
    turn = Turn()
    if isinstance(picture, Image.Image):
        picture.load()  # Pillow turns a TIFF upright here
        turn = Turn.of(picture)
        if is_shown and not picture.mode.startswith(("I", "F")):
            return _shown(picture, channels), turn
    elif not isinstance(picture, np.ndarray):
        kind = type(picture).__name__
        raise BadPicture(f"a {kind}; give PIL images or arrays, or one tensor (B, C, H, W) for all")
    values = np.asarray(picture)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3:
        raise BadPicture(f"an array of shape {list(values.shape)}; give (H, W) or (H, W, C)")
    if is_shown and values.shape[2] in (1, 2, 3, 4) and values.dtype.kind in "iu":
        return _shown(_as_image(values, column), channels), turn
    if column.is_pixels and values.dtype != np.uint8:
        _check_range(values)
    dtype = np.uint8 if column.is_pixels and values.dtype == np.uint8 else np.float32
    arranged = _arranged(values, channels, is_shown).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(arranged, dtype)), turn


def _shown(image: Image.Image, channels: int) -> Tensor:
    return pixels_of(to_rgb(image).convert("L" if channels == 1 else "RGB"))


def _as_image(values: np.ndarray, column: Field) -> Image.Image:
    """Return integers (H, W, C) as a PIL image; those of more than 8 bits by the range of the run's pictures."""
    if values.dtype == np.uint8:
        return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    if not column.levels:
        raise BadPicture(f"integers of {values.dtype}; give uint8 from 0 to 255, or floats in [0, 1]")
    low, high = column.levels
    return deep_to_rgb(values, Reading(levels=(low, high)))


def _check_range(values: np.ndarray) -> None:
    if values.dtype.kind != "f":
        raise BadPicture(f"numbers of {values.dtype}; give uint8 from 0 to 255, or floats in [0, 1]")
    if not (values.min() >= 0 and values.max() <= 1):
        raise BadPicture(f"floats from {values.min():.4g} to {values.max():.4g}; pixels are floats in [0, 1], or uint8")


def _arranged(values: np.ndarray, channels: int, is_shown: bool) -> np.ndarray:
    """Return (H, W, channels): grey is repeated for red, green and blue, and these become grey for one channel."""
    have = values.shape[2]
    if is_shown and (have, channels) == (1, COLOURS):
        return values.repeat(COLOURS, 2)
    if is_shown and (have, channels) == (COLOURS, 1):
        return (values @ np.array(_GREY, values.dtype))[..., None]
    if have != channels:
        raise BadPicture(
            f"an array of shape {list(values.shape)}, and this encoder reads {channels} channels; they come last: "
            f"(H, W, {channels}), and (B, H, W, {channels}) of several pictures"
        )
    return values
