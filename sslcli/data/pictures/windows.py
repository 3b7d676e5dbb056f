"""Windows of a picture: where they lie in the picture as it is stored, and how they are cut out of it and resized."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sslcli.data.pictures.colours import pixels_of
from sslcli.data.pictures.orientation import Turn, Window


def centred(pixels: Tensor, shape: tuple[int, int], turn: Turn) -> Tensor:
    """Return the largest centred window of a picture (C, H, W) as it is stored, upright and resized: (C, *shape)."""
    (window,), (size,) = stored_windows(partial(centred_window, shape), [shape], turn, pixels.shape[2], pixels.shape[1])
    return turn.upright(cut_out(pixels, window, size))


def stored_windows(
    windows: Callable[[int, int], Sequence[Window]],
    sizes: Sequence[tuple[int, int]] | None,
    turn: Turn,
    width: int,
    height: int,
) -> tuple[list[Window], list[tuple[int, int]]]:
    """Return the windows of the picture as it is stored, of ``width`` x ``height``, and the shapes of their results."""
    upright = (width, height) if turn.transposed else (height, width)
    stored = [turn.stored(window, *upright) for window in windows(*upright)]
    return stored, [window[2:] for window in stored] if sizes is None else [turn.shape(size) for size in sizes]


def centred_window(shape: tuple[int, int], height: int, width: int) -> list[Window]:
    """Return the largest centred window with the proportions of ``shape``."""
    scale = min(height / shape[0], width / shape[1])
    h, w = (max(1, round(side * scale)) for side in shape)
    return [((height - h) // 2, (width - w) // 2, h, w)]


def reduction_factor(windows: Sequence[Window], shapes: Sequence[tuple[int, int]]) -> int:
    """Return the largest reduction factor of libjpeg at which every window has at least the pixels of its result."""
    room = min(min(w[2] // shape[0], w[3] // shape[1]) for w, shape in zip(windows, shapes))
    return max(factor for factor in (1, 2, 4, 8) if factor <= max(room, 1))


def cut_out(pixels: Tensor, window: Window, shape: tuple[int, int]) -> Tensor:
    """Cut a window out of a picture (C, H, W) and resize it to (C, *shape)."""
    top, left, height, width = window
    cut = pixels[:, top : top + height, left : left + width]
    if (height, width) == tuple(shape):
        return cut
    return F.interpolate(cut[None], size=shape, mode="bilinear", antialias=True)[0]


def cut_reduced(image: Image.Image, window: Window, shape: tuple[int, int], factor: int) -> Tensor:
    """Cut and resize a window of a picture reduced by ``factor``; Pillow can cut at fractions of pixels."""
    top, left, height, width = (length / factor for length in window)
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    return pixels_of(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box))
