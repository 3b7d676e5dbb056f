"""What patch features encode: their largest principal components as colours (Oquab et al. 2024, DINOv2, figure 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.encoders.base import Encoder
from sslcli.features import evaluating
from sslcli.report.visuals import Patches
from sslcli.types import Compute, View

Axes = Callable[[Tensor, int], tuple[Tensor, Tensor]]  # from centred rows (N, D) to variances (3,) and axes (D, 3)
_SIDE = 32  # largest number of tokens a side; more would not be visible, and a CNN may have one for each pixel


def patches(
    pictures: Tensor, view: View, encoders: Mapping[str, Encoder], compute: Compute, axes: Axes
) -> Patches | None:
    """Return the pictures with the colours of their tokens by each encoder; None where there is no grid of tokens.

    Args:
        pictures: the samples in [0, 1], (B, C, H, W).
        view: the same samples as the encoders read them.
        encoders: by the name of their column, on ``compute``'s device.
        compute: device and precision.
        axes: the largest principal components of rows.
    """
    maps = {name: token_map(encoder, view, compute) for name, encoder in encoders.items()}
    found = {name: components(m, axes) for name, m in maps.items() if m is not None and bool(m.isfinite().all())}
    if len(found) < len(maps):
        return None
    colours = {name: between_0_and_1(map_) for name, (map_, _) in found.items()}
    return Patches({"picture": pictures, **colours}, {name: share for name, (_, share) in found.items()})


def token_map(encoder: Encoder, view: View, compute: Compute) -> Tensor | None:
    """Return the tokens of images as maps (B, D, h, w), at most 32 x 32, in float32 on the CPU.

    None is for encoders without tokens, and for a grid of one row or column.
    """
    if not encoder.token_dim:
        return None
    with evaluating(encoder), compute.autocast():
        tokens = encoder(view).tokens.float().cpu()
    height, width = view.x.shape[2:]
    rows = round(math.sqrt(tokens.shape[1] * height / width))
    columns = tokens.shape[1] // max(rows, 1)
    if rows * columns != tokens.shape[1] or min(rows, columns) < 2:
        return None
    maps = tokens.transpose(1, 2).unflatten(2, (rows, columns))
    return F.adaptive_avg_pool2d(maps, (min(rows, _SIDE), min(columns, _SIDE)))


def components(maps: Tensor, axes: Axes) -> tuple[Tensor, float]:
    """Project all tokens of maps (B, D, h, w) together on their three largest principal components.

    Returns:
        The projections (B, 3, h, w), the largest component first, and their share of the variance.
    """
    tokens = maps.movedim(1, -1)
    rows = tokens.flatten(0, 2) - tokens.flatten(0, 2).mean(0)
    variance, directions = axes(rows, 3)
    largest = variance.argsort(descending=True)
    projected = (rows @ directions[:, largest]).unflatten(0, tokens.shape[:3]).movedim(-1, 1)
    share = float(variance.sum() / rows.square().mean(0).sum().clamp(min=1e-30))
    return F.pad(projected, (0, 0, 0, 0, 0, 3 - len(variance))), share


def between_0_and_1(maps: Tensor) -> Tensor:
    """Scale each channel of maps (B, 3, h, w) from its smallest value in any picture, 0, to its largest, 1."""
    low, high = (edge(maps.movedim(1, 0).flatten(1), 1) for edge in (torch.amin, torch.amax))
    return (maps - low[:, None, None]) / (high - low).clamp(min=1e-12)[:, None, None]
