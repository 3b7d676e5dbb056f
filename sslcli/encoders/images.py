"""What several encoders of images share: their size, masking pixels, and regional pooling."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.types import Spec


def resized(spec: Spec, field: str, image_size: int | None) -> Spec:
    """Return the dataset's columns with the images of ``field`` at ``image_size``; None keeps the dataset's size.

    Raises:
        ValueError: the dataset or the column has no images, they are not square and ``image_size`` is None, or the size
            is below 1.
    """
    if not any(column.kind == "image" for column in spec.values()):
        have = ", ".join(f"'{name}' ({column.kind})" for name, column in spec.items())
        raise ValueError(
            f"this encoder reads images, and the dataset has {have}. encoder=mlp reads vectors, encoder=text_bag tokens"
        )
    column = spec[field]
    if column.kind != "image":
        raise ValueError(f"this encoder reads images; the column '{field}' is {column}")
    if image_size is None:
        if column.shape[1] != column.shape[2]:
            raise ValueError(f"the images are {column.shape[1]} x {column.shape[2]}; set image_size")
        return spec
    if image_size < 1:
        raise ValueError(f"image_size={image_size} must be at least 1")
    shape = (column.shape[0], image_size, image_size)
    return spec.having(field, replace(column, shape=shape))


def hide_pixels(x: Tensor, mask: Tensor | None, mask_value: Tensor) -> Tensor:
    """Replace the pixels of images (B, C, H, W) where ``mask`` (B, H, W) is True by ``mask_value`` (C,)."""
    if mask is None:
        return x
    return torch.where(mask[:, None], mask_value.to(x.dtype)[:, None, None], x)


def pool_cells(features: Tensor, mask: Tensor | None, cells: int) -> Tensor:
    """Average a feature map (B, D, h, w) over ``cells`` x ``cells`` regions: (B, D * cells^2).

    With a pixel mask (B, H, W), each position is weighted by the visible share of the pixels that it covers.
    """
    if mask is None:
        return _region_means(features, cells).flatten(1)
    height, width = features.shape[-2:]
    visible = F.adaptive_avg_pool2d((~mask)[:, None].float(), (height, width))
    total = _region_means(features.float() * visible, cells)
    return (total / _region_means(visible, cells).clamp(min=1e-6)).flatten(1)


def _region_means(x: Tensor, cells: int) -> Tensor:
    """Average (B, D, h, w) over ``cells`` x ``cells`` regions: (B, D, cells, cells)."""
    if x.shape[-2:] == (cells, cells):  # the backward pass of pooling is slow even if every region is one position
        return x
    if (x.is_cuda and torch.are_deterministic_algorithms_enabled()) or torch.compiler.is_exporting():
        return repeatable_means(x, cells)  # every runtime supports the slices and means of this graph
    return F.adaptive_avg_pool2d(x, cells)


def repeatable_means(x: Tensor, cells: int) -> Tensor:
    """Compute ``F.adaptive_avg_pool2d`` by slices, because its own gradient is not deterministic on a GPU."""
    height, width = x.shape[-2:]
    rows = [x[:, :, top:bottom].mean(2) for top, bottom in _regions(height, cells)]
    return torch.stack([torch.stack([row[..., a:b].mean(2) for a, b in _regions(width, cells)], 2) for row in rows], 2)


def _regions(size: int, cells: int) -> list[tuple[int, int]]:
    """Return start and stop of ``cells`` regions that cover ``size`` positions; they may overlap by one position."""
    return [(i * size // cells, -((i + 1) * size // -cells)) for i in range(cells)]
