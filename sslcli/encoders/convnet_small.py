"""A small convolutional net that learns from 28 to 64 pixel images on a laptop's CPU."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sslcli.encoders.base import Encoder, hide_pixels, pool_cells, resized
from sslcli.types import Encoded, Spec, View


class ConvNetSmall(Encoder):
    """Three stages of 3x3 convolutions; the pooled vector keeps ``cells`` x ``cells`` places apart.

    Args:
        spec: the dataset's columns.
        field: the image column to read.
        image_size: pixels a side; null takes the dataset's.
        width: channels of the first stage; later stages have 2 and 4 times as many.
        cells: pooled regions a side, so that dim = 4 * width * cells^2.
        norm: BatchNorm, or ``layer`` = GroupNorm with one group, which does not couple the batch.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        field: str = "image",
        image_size: int | None = None,
        width: int = 16,
        cells: int = 3,
        norm: Literal["batch", "layer"] = "batch",
    ) -> None:
        super().__init__()
        if width < 1 or cells < 1:
            raise ValueError("width and cells must be at least 1")
        self.spec = resized(spec, field, image_size)
        channels = self.spec[field].shape[0]
        self.trunk = nn.Sequential(
            *_stage(channels, width, norm, stride=1),
            *_stage(width, 2 * width, norm, stride=2),
            *_stage(2 * width, 4 * width, norm, stride=2),
        )
        self.filler = nn.Parameter(torch.zeros(channels))
        self.cells = cells
        self.token_dim = 4 * width
        self.dim = self.token_dim * cells**2
        self.stride = 4

    def grid(self, view: View) -> tuple[int, ...]:
        return tuple(view.x.shape[-2:])

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        features = self.trunk(hide_pixels(view.x, mask, self.filler))  # (B, D, h, w)
        return Encoded(features.flatten(2).transpose(1, 2), pool_cells(features, mask, self.cells))


def _stage(channels: int, width: int, norm: str, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(1, width),
        nn.ReLU(inplace=True),
    ]
