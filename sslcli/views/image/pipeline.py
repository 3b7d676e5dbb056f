"""Augmented views of images: crop, flip, blur, rotation, colour jitter, grayscale, solarisation and erasing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.randomness import Randomness
from sslcli.types import Crops, Spec, View
from sslcli.views.base import Views
from sslcli.views.image.augment import cut_out, parts, recoloured, write
from sslcli.views.image.recipe import Chosen, Recipe, sent, still
from sslcli.views.image.windows import RandomCrops


class ImageViews(Views):
    """The augmentations of SimCLR (Chen et al. 2020, appendix A) and its followers; every number off by default.

    They are done in this order: crop, flip, blur, rotation, jitter, grayscale, solarisation, normalisation,
    erasing. The blur comes first because it is folded into the crop; published pipelines blur after the colours,
    which is the same but for colours that leave [0, 1]. Crops are resized by torchvision's antialiased bilinear
    filter, where some published pipelines are bicubic.

    Args:
        view_spec: columns as training views should be; its image size is that of a view.
        spec: columns as evaluation reads them; its image size is that of a clean view.
        num_views: how many views the objective wants, without the local ones.
        field: the image column.
        scale: share of the image's area in a crop, from and to.
        ratio: aspect ratio of a crop, from and to.
        flip: probability of a horizontal flip.
        blur: probability of a Gaussian blur.
        blur_sigma: its standard deviation, in pixels of a 224 pixel view, from and to; of the views' size for
            local views too, so that theirs is as strong in pixels.
        rotate: probability of a rotation; it interpolates bilinearly and is 0 outside the image.
        degrees: its angle, uniform in +- this.
        jitter: probability of colour jitter.
        brightness: factor uniform in 1 +- this; likewise ``contrast`` and ``saturation``.
        contrast: see brightness.
        saturation: see brightness.
        hue: rotation uniform in +- this many turns.
        gray: probability of grayscale.
        solarise: probability of inverting what is at least half as bright as can be.
        erase: probability of setting a rectangle to 0, the mean, after normalisation; not in the target.
        erase_scale: its share of the view's area, from and to.
        erase_ratio: its height to width, from and to.
        second: what differs in the second view: any of the numbers from ``scale`` to ``erase_ratio``.
        num_local: further, smaller views of each image.
        local: what differs in them, as in ``second``.
        local_size: their side as a share of a view's side, rounded to whole pixels.

    Raises:
        ValueError: a number out of its range, a column without images.
        UserError: an unknown or wrong number in ``second`` or ``local``.
    """

    def __init__(
        self,
        view_spec: Spec,
        spec: Spec,
        num_views: int,
        *,
        field: str = "image",
        scale: tuple[float, float] = (1.0, 1.0),
        ratio: tuple[float, float] = (1.0, 1.0),
        flip: float = 0.0,
        blur: float = 0.0,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        rotate: float = 0.0,
        degrees: float = 0.0,
        jitter: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        gray: float = 0.0,
        solarise: float = 0.0,
        erase: float = 0.0,
        erase_scale: tuple[float, float] = (0.02, 0.33),
        erase_ratio: tuple[float, float] = (0.3, 3.3),
        second: Mapping[str, Any] | None = None,
        num_local: int = 0,
        local: Mapping[str, Any] | None = None,
        local_size: float = 0.42857143,
    ) -> None:
        super().__init__()
        self.field, self.column, self.clean_column = field, view_spec[field], spec[field]
        if len(self.column.shape) != 3:
            raise ValueError(f"the column '{field}' holds no images; use views=columns")
        if num_local < 0:
            raise ValueError(f"num_local={num_local} must not be negative")
        if not 0 < local_size <= 1:
            raise ValueError(f"local_size={local_size} must be a share of a view's side, above 0 and up to 1")
        first = Recipe(
            scale=scale, ratio=ratio, flip=flip, blur=blur, blur_sigma=blur_sigma, rotate=rotate, degrees=degrees,
            jitter=jitter, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, gray=gray,
            solarise=solarise, erase=erase, erase_scale=erase_scale, erase_ratio=erase_ratio,
        )  # fmt: skip
        others = first.changed(second, "views.second"), first.changed(local, "views.local")
        height, width = self.column.shape[1:]
        small = max(1, round(local_size * height)), max(1, round(local_size * width))
        self.num_views, self.num_local = num_views, num_local
        self.recipes = [others[0] if k == 1 else first for k in range(num_views)] + [others[1]] * num_local
        self.sizes = ((height, width),) * num_views + (small,) * num_local
        if any(recipe.recolours for recipe in (first, *others)) and self.column.shape[0] not in (1, 3):
            raise ValueError(f"jitter and gray need 1 or 3 channels, and '{field}' has {self.column.shape[0]}")

    @torch.no_grad()
    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        made = []
        for k, (recipe, size) in enumerate(zip(self.recipes, self.sizes)):
            cut = columns.get(f"{self.field}/{k}")
            images = columns[self.field] if cut is None else cut
            source = None if cut is not None else (images.shape[2], images.shape[3])
            pixel = self.column.shape[-1] / 224
            chosen = recipe.choose(randomness, f"view{k}", source, size, images.shape[1], pixel)
            dtype = _model_dtype(images.device)
            with torch.autocast(images.device.type, enabled=False):
                made.append(self._view(images, chosen, size, dtype))
        return made

    @torch.no_grad()
    def evaluation_view(self, columns: Mapping[str, Tensor]) -> View:
        images = columns[self.field]
        size = self.clean_column.shape[1], self.clean_column.shape[2]
        x = _empty(images, size, torch.float32)
        whole = still(len(images), images.shape[2], images.shape[3])
        for part in parts(images, size):
            host = whole.part(part)
            write(x[part], cut_out(images[part], host, sent(host, images.device), size), self.column)
        return View(x, self.field, target=x)

    def crops(self, randomness: Randomness) -> Crops | None:
        if not any(recipe.crops for recipe in self.recipes):
            return None
        numbers = [recipe.crop_numbers(randomness, f"view{k}") for k, recipe in enumerate(self.recipes)]
        bounds = [(recipe.scale, recipe.ratio) for recipe in self.recipes]
        return RandomCrops(self.sizes, tuple(numbers), tuple(bounds))

    def _view(self, images: Tensor, chosen: Chosen[np.ndarray], size: tuple[int, int], dtype: torch.dtype) -> View:
        x = _empty(images, size, dtype)
        target = _empty(images, size, torch.float32) if self.with_target else None
        for part in parts(images, size):
            host = chosen.part(part)
            device = sent(host, images.device)
            seen = cut_out(images[part], host, device, size)
            if target is not None:
                sharp = cut_out(images[part], unblurred(host), device, size) if host.sigma.any() else seen
                write(target[part], sharp, self.column)
            write(x[part], recoloured(seen, host, device), self.column, device if host.erase.any() else None)
        return View(x, self.field, target=target)


def unblurred(host: Chosen[np.ndarray]) -> Chosen[np.ndarray]:
    """The same geometry, sharp."""
    return replace(host, sigma=np.zeros_like(host.sigma))


def _model_dtype(device: torch.device) -> torch.dtype:
    """What autocast would turn the views into."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def _empty(images: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Room for views of ``images`` (B, C, H, W), in the layout that convolutions are fastest in."""
    shape = len(images), images.shape[1], *size
    return torch.empty(shape, dtype=dtype, device=images.device, memory_format=torch.channels_last)
