"""Crop, resize, flip and blur, each sample with its own parameters, as two matrix products.

An antialiased resize is linear and separable: out = A_h @ x @ A_w^T. A crop restricts the input to a window, a flip
reverses the rows of A_w, and a blur multiplies A_h and A_w by a banded matrix. So one pair of small matrices per sample
expresses all four operations. There are two implementations with the same weights: ``resample`` multiplies a batch
by whole matrices; ``resample_one``, for large images on a CPU, multiplies one image by those blocks of the matrices
that are not zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 32  # output pixels a block
REACH = 5  # the blur kernel is cut off at this many standard deviations; the tails sum to 6e-7


def resample(
    x: Tensor, rows: tuple[Tensor, Tensor], cols: tuple[Tensor, Tensor], mirrored: Tensor, size: tuple[int, int],
    sigma: Tensor | None = None, chosen: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Crop, resize, flip and blur a batch: (B, C, *size).

    Args:
        x: (B, C, H, W) images.
        rows: top and height of each window, (B,) each.
        cols: left and width of each window, (B,) each.
        mirrored: (B,) 1 for a horizontal flip, else 0.
        size: height and width of the result.
        sigma: (b,) standard deviation of the blur in pixels of the result, for the samples ``chosen``.
        chosen: (b,) indices of the samples to blur; None for no blur.
    """
    down = resize_matrix(*rows, x.shape[2], size[0])
    right = resize_matrix(*cols, x.shape[3], size[1], mirrored)
    if sigma is not None and chosen is not None:
        for matrix in (down, right):
            matrix.index_copy_(0, chosen, blur_matrix(sigma, matrix.shape[1]) @ matrix.index_select(0, chosen))
    # With channels between height and width, each side needs one product a sample, for all channels.
    lines = x.transpose(1, 2).contiguous()  # (B, H, C, W)
    short = torch.bmm(down, lines.flatten(2)).view(len(x), -1, x.shape[3])  # (B, h * C, W)
    return torch.bmm(short, right.transpose(1, 2)).view(len(x), size[0], -1, size[1]).transpose(1, 2)


def resample_one(x: Tensor, size: tuple[int, int], mirrored: bool = False, sigma: float = 0.0) -> Tensor:
    """Resize one window (C, H, W) to ``size``, flip and blur it; equals ``resample`` up to rounding."""
    channels, height, width = x.shape
    if width == size[1] and not sigma:
        across = x.flip(2) if mirrored else x
    else:
        across = x.new_empty(channels, height, size[1])
        lines, out = x.reshape(-1, width), across.view(-1, size[1])
        for target, source, weight in blocks(width, size[1], sigma, mirrored):
            torch.mm(lines[:, source], weight.T, out=out[:, target])
    if height == size[0] and not sigma:
        return across
    result = x.new_empty(channels, *size)
    for target, source, weight in blocks(height, size[0], sigma):
        result[:, target] = weight @ across[:, source]
    return result


def resize_matrix(start: Tensor, length: Tensor, size: int, out: int, mirrored: Tensor | None = None) -> Tensor:
    """Return matrices (B, out, size) that resize the window [start, start + length) of ``size`` pixels to ``out``.

    The filter is the antialiased triangle of ``torchvision.transforms.v2.functional.resized_crop(antialias=True)``.
    Its half-width is length / out when the window is reduced, and one pixel when it is enlarged. ``start`` and
    ``length`` (B,) are whole numbers of pixels; where ``mirrored`` (B,) is 1 the order of the rows is reversed.
    """
    start, length = start[:, None], length[:, None]
    scale = length / out
    centre = start + scale * (torch.arange(out, device=start.device) + 0.5)
    if mirrored is not None:
        centre = torch.lerp(centre, 2 * start + length - centre, mirrored[:, None])
    source = torch.arange(size, device=start.device) + 0.5
    inside = (source > start) & (source < start + length)
    return _triangle(centre, source, scale.clamp(min=1)[..., None], inside)


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Return matrices (B, size, size) of a Gaussian blur with standard deviation ``sigma`` (B,) > 0 in pixels.

    Weights are renormalised at the border; torchvision reflects the image instead.
    """
    position = torch.arange(size, device=sigma.device, dtype=sigma.dtype)
    return _gaussian(position, position, sigma[:, None, None], size)


def blocks(length: int, out: int, sigma: float = 0.0, mirrored: bool = False) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield (output slice, input slice, weights) of each block of the matrix that resizes ``length`` pixels to ``out``.

    For a blur, a block is first resized with a halo on both sides.
    """
    scale, support = length / out, max(length / out, 1.0)
    halo = math.ceil(REACH * sigma)
    count = math.ceil(out / BLOCK)
    inner = torch.arange(count * BLOCK, dtype=torch.float32).view(count, BLOCK)
    position = inner[:, :1] - halo + torch.arange(BLOCK + 2 * halo)
    centre = scale * (position.clamp(0, out - 1) + 0.5)
    if mirrored:
        centre = length - centre
    lowest = (centre.amin(1) - support).floor().clamp(min=0)
    width = min(length, math.ceil((BLOCK + 2 * halo - 1) * scale + 2 * support) + 1)
    first = lowest.clamp(max=length - width)
    weight = _triangle(centre, first[:, None, None] + torch.arange(width) + 0.5, support)
    if sigma:
        weight = _gaussian(inner, position[:, None], sigma, out) @ weight
    for k, start in enumerate(first.int().tolist()):
        stop = min((k + 1) * BLOCK, out)
        yield slice(k * BLOCK, stop), slice(start, start + width), weight[k, : stop - k * BLOCK]


def _triangle(centre: Tensor, source: Tensor, support: Tensor | float, inside: Tensor | None = None) -> Tensor:
    """Return weights (..., P, L), summing to 1, of pixels at ``source`` (..., L) in outputs at ``centre`` (..., P)."""
    weight = (source - centre[..., None]).abs_().div_(support).neg_().add_(1).clamp_(min=0)
    if inside is not None:
        weight.mul_(inside[:, None])
    return weight.div_(weight.sum(-1, keepdim=True))


def _gaussian(inner: Tensor, position: Tensor, sigma: Tensor | float, out: int) -> Tensor:
    """Return weights (..., S, P), summing to 1, of pixels at ``position`` in blurred pixels at ``inner``.

    Positions outside of [0, out) have the weight 0.
    """
    squared = ((position - inner[..., None]) / sigma).square_()
    weight = torch.exp(squared.mul(-0.5)).mul_((squared <= REACH**2) & (position >= 0) & (position < out))
    return weight.div_(weight.sum(-1, keepdim=True))
