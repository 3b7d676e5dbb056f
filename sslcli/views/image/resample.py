"""Crop, resize, flip and blur, each sample with its own parameters, as two matrix products.

An antialiased resize is linear and separable: out = A_h @ x @ A_w^T. A crop picks a window of the input,
a flip reverses the rows of A_w, a blur multiplies another banded matrix onto each. So one pair of small
matrices per sample does all four. They are applied in one of two ways, with the same weights: a batch at
once with whole matrices, or, for large images on a processor, one image at a time and of each matrix only
the blocks around the band that is not zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 32  # output pixels of a block
REACH = 5  # standard deviations after which a blur ends; what is beyond adds up to 6e-7


def resample(
    x: Tensor, rows: tuple[Tensor, Tensor], cols: tuple[Tensor, Tensor], mirrored: Tensor, size: tuple[int, int],
    sigma: Tensor | None = None, chosen: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Windows of a batch, resized, flipped and blurred.

    Args:
        x: (B, C, H, W) images.
        rows: first pixel and length of each window downwards, (B,) each.
        cols: the same to the right.
        mirrored: (B,) 1 for a horizontal flip, else 0.
        size: height and width of the result.
        sigma: (b,) standard deviation of the blur in pixels of the result, for the samples ``chosen``.
        chosen: (b,) samples to blur, where some are.
    """
    down = resize_matrix(*rows, x.shape[2], size[0])
    right = resize_matrix(*cols, x.shape[3], size[1], mirrored)
    if sigma is not None and chosen is not None:
        for matrix in (down, right):
            matrix.index_copy_(0, chosen, blur_matrix(sigma, matrix.shape[1]) @ matrix.index_select(0, chosen))
    # With the channels between height and width, each side is one product a sample for all channels.
    lines = x.transpose(1, 2).contiguous()  # (B, H, C, W)
    short = torch.bmm(down, lines.flatten(2)).view(len(x), -1, x.shape[3])  # (B, h * C, W)
    return torch.bmm(short, right.transpose(1, 2)).view(len(x), size[0], -1, size[1]).transpose(1, 2)


def resample_one(x: Tensor, size: tuple[int, int], mirrored: bool = False, sigma: float = 0.0) -> Tensor:
    """One window (C, H, W), resized to ``size``, flipped and blurred; as ``resample`` up to rounding."""
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
    """(B, out, size) rows that resize the window [start, start + length) of ``size`` pixels to ``out``.

    The antialiased triangle filter of ``torchvision.transforms.v2.functional.resized_crop(antialias=True)``:
    its half-width is the scale when it shrinks and one pixel when it enlarges. ``start`` and ``length`` (B,)
    are whole numbers of pixels; where ``mirrored`` (B,) is 1 the rows stand in reverse.
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
    """(B, size, size) Gaussian blur of standard deviation ``sigma`` (B,) pixels, above 0.

    Weights are renormalised at the border, where torchvision reflects the image.
    """
    place = torch.arange(size, device=sigma.device, dtype=sigma.dtype)
    return _gaussian(place, place, sigma[:, None, None], size)


def blocks(length: int, out: int, sigma: float = 0.0, mirrored: bool = False) -> Iterator[tuple[slice, slice, Tensor]]:
    """(output, input, weights) of each block of the matrix that resizes ``length`` pixels to ``out``.

    To be blurred, a block is first resized with a halo on both sides.
    """
    scale, support = length / out, max(length / out, 1.0)
    halo = math.ceil(REACH * sigma)
    count = math.ceil(out / BLOCK)
    inner = torch.arange(count * BLOCK, dtype=torch.float32).view(count, BLOCK)
    place = inner[:, :1] - halo + torch.arange(BLOCK + 2 * halo)
    centre = scale * (place.clamp(0, out - 1) + 0.5)
    if mirrored:
        centre = length - centre
    lowest = (centre.amin(1) - support).floor().clamp(min=0)
    wide = min(length, math.ceil((BLOCK + 2 * halo - 1) * scale + 2 * support) + 1)
    first = lowest.clamp(max=length - wide)
    weight = _triangle(centre, first[:, None, None] + torch.arange(wide) + 0.5, support)
    if sigma:
        weight = _gaussian(inner, place[:, None], sigma, out) @ weight
    for k, start in enumerate(first.int().tolist()):
        stop = min((k + 1) * BLOCK, out)
        yield slice(k * BLOCK, stop), slice(start, start + wide), weight[k, : stop - k * BLOCK]


def _triangle(centre: Tensor, source: Tensor, support: Tensor | float, inside: Tensor | None = None) -> Tensor:
    """(..., P, L) normalised weights of the pixels at ``source`` (..., L) in the outputs at ``centre`` (..., P)."""
    weight = (source - centre[..., None]).abs_().div_(support).neg_().add_(1).clamp_(min=0)
    if inside is not None:
        weight.mul_(inside[:, None])
    return weight.div_(weight.sum(-1, keepdim=True))


def _gaussian(inner: Tensor, place: Tensor, sigma: Tensor | float, out: int) -> Tensor:
    """(..., S, P) normalised weights of the pixels at ``place`` in the blurred ones at ``inner``; none outside."""
    far = ((place - inner[..., None]) / sigma).square_()
    weight = torch.exp(far.mul(-0.5)).mul_((far <= REACH**2) & (place >= 0) & (place < out))
    return weight.div_(weight.sum(-1, keepdim=True))
