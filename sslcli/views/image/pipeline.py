"""Augmented views of images: crop, flip, blur, rotation, colour jitter, grayscale, solarisation and erasing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sslcli.config.keyword_fields import takes_fields_of
from sslcli.config.ranges import Natural, Positive
from sslcli.errors import UserError
from sslcli.randomness import Randomness
from sslcli.types import Crops, Spec, View
from sslcli.views.base import Views
from sslcli.views.image.augment import augment
from sslcli.views.image.parameters import Size, crop_numbers, draw, whole_images
from sslcli.views.image.recipe import Recipe
from sslcli.views.image.windows import RandomCrops


class ImageViews(Views):
    """The augmentations of SimCLR (Chen et al. 2020, appendix A) and later methods; all of them are off by default.

    ``Recipe`` lists them in the order in which they are applied. Published pipelines blur after changing colours, here
    the blur is part of the crop; results differ only where colours are clamped to [0, 1]. Crops are resized by
    torchvision's antialiased bilinear filter; some published pipelines use a bicubic filter.

    Args:
        view_spec: columns at the size of training views.
        spec: columns at the size of the evaluation view.
        num_views: how many views the objective reads, without local views.
        field: the image column.
        second: fields of the recipe that are different in the second view.
        num_local: number of additional, smaller views of each image (multi-crop).
        local: fields of the recipe that are different in local views.
        local_size: side of a local view as a share of a view's side, rounded to whole pixels.
        **recipe: the fields of ``Recipe``, from ``scale`` to ``channel_drop``.

    Raises:
        ValueError: a value is out of its range, or the column has no images.
        UserError: ``second`` or ``local`` has an unknown field or an invalid value.
    """

    @takes_fields_of(Recipe)
    def __init__(
        self,
        view_spec: Spec,
        spec: Spec,
        num_views: int,
        *,
        field: str = "image",
        second: Mapping[str, Any] | None = None,
        num_local: Natural = 0,
        local: Mapping[str, Any] | None = None,
        local_size: Positive = 0.42857143,
        **recipe: Any,
    ) -> None:
        super().__init__()
        self.field, self.column, self.evaluation_column = field, view_spec[field], spec[field]
        if self.column.kind != "image":
            raise ValueError(f"the column '{field}' holds no images; use views=columns")
        if num_local < 0:
            raise ValueError(f"num_local={num_local} must not be negative")
        if not 0 < local_size <= 1:
            raise ValueError(f"local_size={local_size} must be a share of a view's side, above 0 and up to 1")
        first = Recipe(**recipe)
        other, small = first.changed(second, "views.second"), first.changed(local, "views.local")
        channels, height, width = self.column.shape
        if any(each.recolours for each in (first, other, small)) and channels not in (1, 3):
            raise ValueError(
                f"jitter and gray need 1 or 3 channels, and '{field}' has {channels}. Set views.jitter=0 views.gray=0"
            )
        self.num_views, self.num_local = num_views, num_local
        self.recipes = [other if k == 1 else first for k in range(num_views)] + [small] * num_local
        local_side = max(1, round(local_size * height)), max(1, round(local_size * width))
        self.sizes = ((height, width),) * num_views + (local_side,) * num_local

    @torch.no_grad()
    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        return [self._view(k, columns, randomness) for k in range(len(self.recipes))]

    @torch.no_grad()
    def evaluation_view(self, columns: Mapping[str, Tensor], field: str | None = None) -> View:
        if field not in (None, self.field):
            raise UserError(f"views.field={self.field}: no view is made of the column '{field}'.")
        images = columns[self.field]
        _, height, width = self.evaluation_column.shape
        x = _empty_views(images, (height, width), torch.float32)
        augment(images, whole_images(len(images), _size(images)), self.evaluation_column, x, target=None)
        return View(x, self.field, target=x)

    def crops(self, randomness: Randomness) -> Crops | None:
        if not any(recipe.crops for recipe in self.recipes):
            return None
        numbers = [crop_numbers(randomness, _stream(k)) for k in range(len(self.recipes))]
        bounds = [(recipe.scale, recipe.ratio) for recipe in self.recipes]
        return RandomCrops(self.sizes, tuple(numbers), tuple(bounds))

    def _view(self, k: int, columns: Mapping[str, Tensor], randomness: Randomness) -> View:
        """Make view ``k`` of every image, or of its crop if the dataset has cut crops from full images (``crops``)."""
        cut = columns.get(f"{self.field}/{k}")
        images = columns[self.field] if cut is None else cut
        source = _size(images) if cut is None else None
        pixel = self.column.shape[2] / 224
        parameters = draw(self.recipes[k], randomness, _stream(k), source, self.sizes[k], images.shape[1], pixel)
        x = _empty_views(images, self.sizes[k], _model_dtype(images.device))
        target = _empty_views(images, self.sizes[k], torch.float32) if self.with_target else None
        with torch.autocast(images.device.type, enabled=False):
            augment(images, parameters, self.column, x, target)
        return View(x, self.field, target=target)


def _stream(k: int) -> str:
    """Return the name of the random stream of view ``k``."""
    return f"view{k}"


def _size(images: Tensor) -> Size:
    return images.shape[2], images.shape[3]


def _model_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype to which autocast would convert the views."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def _empty_views(images: Tensor, size: Size, dtype: torch.dtype) -> Tensor:
    """Allocate views for ``images`` (B, C, H, W), channels last, because convolutions are fastest in this layout."""
    shape = len(images), images.shape[1], *size
    return torch.empty(shape, dtype=dtype, device=images.device, memory_format=torch.channels_last)
