"""Random masks that hide the same exact number of cells in every sample.

A mask is (B, rows, cols) bool over the cells of an image, True where hidden. It depends on the step's random
numbers alone and is made without a loop over samples and without device synchronisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.randomness import Randomness

RECTANGLES = 32  # drawn per sample; to hide 90 % of a 14 x 14 grid, 2 samples in 1000 need more than 16


def random_cells(randomness: Randomness, name: str, rows: int, cols: int, count: int) -> Tensor:
    """Hide ``count`` cells of each sample, uniformly at random: (B, rows, cols) (SimMIM, section 3.2; MAE, section 3).

    Args:
        randomness: random numbers of the samples.
        name: name of the stream of random numbers.
        rows: rows of the grid.
        cols: columns of the grid.
        count: number of hidden cells.
    """
    return _first(randomness.uniform(name, rows * cols), count).unflatten(1, (rows, cols))


def random_rectangles(randomness: Randomness, name: str, rows: int, cols: int, count: int) -> Tensor:
    """Hide overlapping rectangles until ``count`` cells are hidden: (B, rows, cols) (BEiT, algorithm 1).

    As in BEiT, a rectangle has 16 cells or more and sides in a ratio of 0.3 to 1 / 0.3. BEiT bounds the area of a
    rectangle by the number of cells still to hide; here it is bounded by ``count``, and the last rectangle is cut
    at its lower rows, so that the count is exact. If the rectangles do not suffice, further cells follow from the top.

    Args:
        randomness: random numbers of the samples.
        name: name of the stream of random numbers.
        rows: rows of the grid.
        cols: columns of the grid.
        count: number of hidden cells.
    """
    size, shape, down, right = randomness.uniform(name, 4, RECTANGLES, 1).unbind(1)  # each (B, RECTANGLES, 1)
    least = min(16, count)
    area = least + size * (count - least)
    aspect = torch.exp((2 * shape - 1) * math.log(1 / 0.3))
    height = (area * aspect).sqrt().round().clamp(1, rows)
    width = (area / aspect).sqrt().round().clamp(1, cols)
    top = (down * (rows - height + 1)).floor()
    left = (right * (cols - width + 1)).floor()
    row = torch.arange(rows, device=size.device)
    col = torch.arange(cols, device=size.device)
    in_rows = (row >= top) & (row < top + height)  # (B, RECTANGLES, rows)
    in_cols = (col >= left) & (col < left + width)
    reached = size.new_full((len(size), rows, cols), RECTANGLES, dtype=torch.uint8)  # first rectangle
    for k in reversed(range(RECTANGLES)):
        reached.masked_fill_(in_rows[:, k, :, None] & in_cols[:, k, None, :], k)
    raster = torch.arange(rows * cols, dtype=torch.int32, device=size.device)
    return _first(reached.flatten(1).int() * (rows * cols) + raster, count).unflatten(1, (rows, cols))


def _first(keys: Tensor, count: int) -> Tensor:
    """Return (B, n) bool, True at the ``count`` smallest keys of each row."""
    mask = torch.zeros_like(keys, dtype=torch.bool)
    return mask.scatter_(1, keys.argsort(dim=1)[:, :count], True)


def share_rounded_up(ratio: float, cells: int) -> int:
    """Return the number of cells that SimMIM's published code hides: ceil(cells * ratio)."""
    return math.ceil(cells * ratio)


def rest_rounded_down(ratio: float, cells: int) -> int:
    """Return the number of cells that MAE's published code hides: it keeps int(cells * (1 - ratio))."""
    return cells - int(cells * (1 - ratio))


Draw = Callable[[Randomness, str, int, int, int], Tensor]
MASKS: dict[str, tuple[Draw, Callable[[float, int], int]]] = {
    "block": (random_cells, share_rounded_up),
    "random": (random_cells, rest_rounded_down),
    "blockwise": (random_rectangles, share_rounded_up),
}


def cell_size(wish: int | None, mask: str, height: int, patch: int, stride: int) -> int:
    """Return the side of a mask cell in pixels: the requested size, checked, or a default for this mask and image.

    The default for ``block`` is 32, as published, on images of 128 pixels and more, else the larger of an eighth of
    the side and one output token. For the other masks it is the encoder's patch, or one output token of a CNN.

    Args:
        wish: the requested size, if any.
        mask: the kind of mask.
        height: height of the image in pixels.
        patch: side of the encoder's patches; the result is a multiple of it; 1 for a CNN.
        stride: side of an output token in pixels.

    Raises:
        ValueError: the requested size does not divide the image, or is no multiple of the encoder's patch.
    """
    fitting = [n for n in range(patch, height, patch) if height % n == 0] or [height]
    if wish is None:
        published = 32 if height >= 128 else max(stride, height // 8)
        one = patch if patch > 1 else stride
        least = published if mask == "block" else one
        return next((n for n in fitting if n >= least), fitting[-1])
    if wish < 1 or height % wish:
        sizes = ", ".join(map(str, fitting))
        raise ValueError(f"mask_patch={wish} does not divide the {height} x {height} image; use one of {sizes}")
    if wish % patch:
        raise ValueError(f"mask_patch={wish} is not a multiple of the encoder's patch of {patch} pixels")
    return wish


def scaled_to(mask: Tensor, height: int, width: int) -> Tensor:
    """Return a mask (B, rows, cols) on a finer grid (B, height, width), each cell repeated."""
    return mask.repeat_interleave(height // mask.shape[1], 1).repeat_interleave(width // mask.shape[2], 2)
