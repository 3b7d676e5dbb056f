"""A small convolutional net for images of 28 to 64 pixels, fast enough to train on a laptop's CPU."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from sslcli.config.ranges import Count, Range, Side
from sslcli.encoders.base import Encoder
from sslcli.encoders.images import hide_pixels, pool_cells, resized
from sslcli.types import Encoded, Spec, View


class ConvNetSmall(Encoder):
    """Three 3x3 convolutions; the pooled vector concatenates the means of ``cells`` x ``cells`` regions.

    Training views may be smaller than the images at evaluation. Random crops enlarge objects; in smaller views objects
    have about the same size in pixels as in whole images (Touvron et al. 2019, arXiv:1906.06423), and a step takes a
    third of the time.

    Args:
        spec: the dataset's columns.
        field: the image column to read.
        image_size: pixels a side; null takes the dataset's.
        view_share: side of a training view as a share of image_size, rounded to a multiple of the stride.
        width: channels of the first convolution; the next have 2 and 4 times as many.
        cells: pooled regions a side, so that dim = 4 * width * cells^2.
        norm: ``batch`` is BatchNorm; ``layer`` is GroupNorm with one group, which treats each sample alone.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        field: str = "image",
        image_size: Side | None = None,
        view_share: float = 0.57,
        width: Count = 16,
        cells: Annotated[int, Range(1, 64)] = 4,
        norm: Literal["batch", "layer"] = "batch",
    ) -> None:
        super().__init__()
        if width < 1 or cells < 1:
            raise ValueError("width and cells must be at least 1")
        if not 0 < view_share <= 1:
            raise ValueError(f"view_share={view_share} must be above 0 and at most 1")
        self.field = field
        self.spec = resized(spec, field, image_size)
        channels, size, _ = self.spec[field].shape
        self.stride = 4
        small = max(1, round(view_share * size / self.stride)) * self.stride
        self._view_spec = self.spec if view_share == 1 else resized(spec, field, min(size, small))
        self.trunk = nn.Sequential(
            *_block(channels, width, norm, stride=2),
            *_block(width, 2 * width, norm),
            nn.MaxPool2d(2, ceil_mode=True),
            *_block(2 * width, 4 * width, norm),
        )
        self.filler = nn.Parameter(torch.zeros(channels))  # the mask value; checkpoints know it by this name
        self.cells = cells
        self.token_dim = 4 * width
        self.dim = self.token_dim * cells**2

    @property
    def view_spec(self) -> Spec:
        return self._view_spec

    def grid(self, view: View) -> tuple[int, ...]:
        return tuple(view.x.shape[-2:])

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        self.expect(view, self.field)
        features = self.trunk(hide_pixels(view.x, mask, self.filler))  # (B, D, h, w)
        return Encoded(features.flatten(2).transpose(1, 2), pool_cells(features, mask, self.cells))


def _block(channels: int, width: int, norm: str, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(1, width),
        nn.ReLU(inplace=True),
    ]
