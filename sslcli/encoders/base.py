"""What an encoder is, and what several encoders share: hiding pixels, and averaging the regions of a feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.types import Encoded, Field, Spec, View


class Encoder(nn.Module):
    """Turns a view into tokens and one pooled vector.

    A masked objective says where to hide (a bool mask on ``grid``); the encoder knows how.
    """

    spec: Spec  # the dataset's columns as this encoder reads them: its image size
    dim: int  # width of the pooled vector
    token_dim: int  # width of a token; 0 for an encoder without tokens
    stride: int  # input units per output token and side
    can_drop: bool = False  # whether forward takes visible_only=True: hidden tokens left out, not replaced

    @property
    def view_spec(self) -> Spec:
        """The columns as training views should be; smaller than ``spec`` where that pays (see ConvNetSmall)."""
        return self.spec

    @property
    def patch_embedding(self) -> nn.Module | None:
        """What turns the image into the first tokens of a transformer, for an objective that freezes it."""
        return None

    def grid(self, view: View) -> tuple[int, ...]:
        """The shape of a mask for this view: patches of a ViT, pixels of a CNN."""
        raise NotImplementedError

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        """Encode (B, ...); ``mask`` (B, *grid) bool, True is hidden; ``pooled`` averages visible, valid tokens."""
        raise NotImplementedError


def resized(spec: Spec, field: str, image_size: int | None) -> Spec:
    """The dataset's columns with the image column ``field`` at ``image_size`` (null keeps the dataset's)."""
    column = spec[field]
    if len(column.shape) != 3:
        raise ValueError(f"this encoder reads images; the column '{field}' has the shape {column.shape}")
    if image_size is None:
        if column.shape[1] != column.shape[2]:
            raise ValueError(f"the images are {column.shape[1]} x {column.shape[2]}; set image_size")
        return spec
    if image_size < 1:
        raise ValueError(f"image_size={image_size} must be at least 1")
    shape = (column.shape[0], image_size, image_size)
    return Spec({**spec, field: Field(shape, column.vocab, column.mean, column.std)})


def hide_pixels(x: Tensor, mask: Tensor | None, mask_value: Tensor) -> Tensor:
    """Images (B, C, H, W) with the masked (B, H, W) pixels replaced by ``mask_value`` (C,)."""
    if mask is None:
        return x
    return torch.where(mask[:, None], mask_value.to(x.dtype)[:, None, None], x)


def pool_cells(features: Tensor, mask: Tensor | None, cells: int) -> Tensor:
    """(B, D * cells^2) means over ``cells`` x ``cells`` regions of a feature map (B, D, h, w).

    With a pixel mask (B, H, W), each position counts by the visible share of the pixels above it.
    """
    if mask is None:
        return _region_means(features, cells).flatten(1)
    height, width = features.shape[-2:]
    visible = F.adaptive_avg_pool2d((~mask)[:, None].float(), (height, width))
    total = _region_means(features.float() * visible, cells)
    return (total / _region_means(visible, cells).clamp(min=1e-6)).flatten(1)


def _region_means(x: Tensor, cells: int) -> Tensor:
    """(B, D, cells, cells) from (B, D, h, w): the means over ``cells`` x ``cells`` regions."""
    if x.shape[-2:] == (cells, cells):  # pooling's backward pass is slow even where it does nothing
        return x
    if (x.is_cuda and torch.are_deterministic_algorithms_enabled()) or torch.compiler.is_exporting():
        return repeatable_means(x, cells)  # in a graph, slices and means are what every runtime knows
    return F.adaptive_avg_pool2d(x, cells)


def repeatable_means(x: Tensor, cells: int) -> Tensor:
    """``F.adaptive_avg_pool2d`` in slices, whose gradient repeats bit for bit on a GPU, as that function's does not."""
    height, width = x.shape[-2:]
    rows = [x[:, :, top:bottom].mean(2) for top, bottom in _regions(height, cells)]
    return torch.stack([torch.stack([row[..., a:b].mean(2) for a, b in _regions(width, cells)], 2) for row in rows], 2)


def _regions(size: int, cells: int) -> list[tuple[int, int]]:
    """From and to of each of ``cells`` regions that cover ``size`` places, overlapping where they must."""
    return [(i * size // cells, -((i + 1) * size // -cells)) for i in range(cells)]
