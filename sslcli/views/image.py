"""Augmented views of images: crop, flip, colour jitter, grayscale and blur, batched on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sslcli.randomness import Randomness
from sslcli.types import Spec, View
from sslcli.views.base import Views, normalise
from sslcli.views.colour import jitter
from sslcli.views.resample import blur_matrix, random_windows, resize_matrix


class ImageViews(Views):
    """The augmentations of SimCLR (Chen et al. 2020, appendix A); every number off by default.

    Args:
        view_spec: columns as training views should be; its image size is that of a view.
        spec: columns as evaluation reads them; its image size is that of a clean view.
        num_views: how many views the objective wants.
        field: the image column.
        scale: share of the image's area in a crop, from and to.
        ratio: aspect ratio of a crop, from and to.
        flip: probability of a horizontal flip.
        jitter: probability of colour jitter.
        brightness: factor uniform in 1 +- this; likewise ``contrast`` and ``saturation``.
        contrast: see brightness.
        saturation: see brightness.
        hue: rotation uniform in +- this many turns.
        gray: probability of grayscale.
        blur: probability of a Gaussian blur.
        blur_sigma: its standard deviation, in pixels of a 224 pixel view, from and to.
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
        jitter: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        gray: float = 0.0,
        blur: float = 0.0,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
    ) -> None:
        super().__init__()
        self.column, self.clean_column = view_spec[field], spec[field]
        if len(self.column.shape) != 3:
            raise ValueError(f"the column '{field}' holds no images; use views=columns")
        if (jitter or gray) and self.column.shape[0] not in (1, 3):
            raise ValueError(f"jitter and gray need 1 or 3 channels, and '{field}' has {self.column.shape[0]}")
        for name, value in (("flip", flip), ("jitter", jitter), ("gray", gray), ("blur", blur)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} is not a probability; give a number from 0 to 1")
        for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if value < 0:
                raise ValueError(f"{name}={value} must not be negative")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale={list(scale)} must be two shares with 0 < from <= to <= 1")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio={list(ratio)} must be two positive numbers, the smaller first")
        if not 0 <= blur_sigma[0] <= blur_sigma[1]:
            raise ValueError(f"blur_sigma={list(blur_sigma)} must be two numbers, the smaller first")
        if not 0 <= hue <= 0.5:
            raise ValueError(f"hue={hue} must be from 0 to 0.5 turns")
        self.field = field
        self.num_views = num_views
        self.scale, self.ratio = scale, ratio
        self.p_flip, self.p_jitter, self.p_gray, self.p_blur = flip, jitter, gray, blur
        self.strengths = (brightness, contrast, saturation)
        self.hue = hue
        pixels = self.column.shape[-1] / 224
        self.sigma = (blur_sigma[0] * pixels, blur_sigma[1] * pixels)

    @torch.no_grad()
    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        x = _unit(columns[self.field])
        return [self._view(x, randomness, f"view{k}") for k in range(self.num_views)]

    @torch.no_grad()
    def clean(self, columns: Mapping[str, Tensor]) -> View:
        x = _unit(columns[self.field])
        height, width = self.clean_column.shape[-2:]
        if x.shape[-2:] != (height, width):
            whole = torch.tensor([[0, x.shape[-2]], [0, x.shape[-1]]], dtype=x.dtype).to(x.device)
            rows = resize_matrix(whole[:1, 0], whole[:1, 1], x.shape[-2], height)
            cols = resize_matrix(whole[1:, 0], whole[1:, 1], x.shape[-1], width)
            x = _resample(x, rows, cols)
        x = normalise(x, self.column).contiguous(memory_format=torch.channels_last)
        return View(x, self.field, target=x)

    def _view(self, x: Tensor, randomness: Randomness, name: str) -> View:
        geometric, blur, colour = randomness.uniform(name, 31).split([23, 2, 6], dim=1)
        rows, cols = self._geometry(x, geometric)
        seen = self._recoloured(_resample(x, *self._blurred(rows, cols, blur)), colour)
        view = View(self._finish(seen), self.field)
        if self.with_target:
            view.target = self._finish(_resample(x, rows, cols))
        return view

    def _geometry(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """The crop and flip of (B, C, H, W) as row and column matrices, from uniforms (B, 23)."""
        height, width = self.column.shape[-2:]
        top, left, h, w = random_windows(u[:, :22], x.shape[-2], x.shape[-1], self.scale, self.ratio)
        rows = resize_matrix(top, h, x.shape[-2], height)
        cols = resize_matrix(left, w, x.shape[-1], width)
        return rows, torch.where((u[:, 22] < self.p_flip)[:, None, None], cols.flip(1), cols)

    def _blurred(self, rows: Tensor, cols: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """The same matrices with each sample's blur multiplied on, from uniforms (B, 2)."""
        if not self.p_blur:
            return rows, cols
        sigma = self.sigma[0] + (self.sigma[1] - self.sigma[0]) * u[:, 1]
        sigma = torch.where(u[:, 0] < self.p_blur, sigma, 0.0)
        return blur_matrix(sigma, rows.shape[1]) @ rows, blur_matrix(sigma, cols.shape[1]) @ cols

    def _recoloured(self, x: Tensor, u: Tensor) -> Tensor:
        """Jitter and grayscale, from uniforms (B, 6)."""
        if not self.p_jitter and not self.p_gray:
            return x
        on, brightness, contrast, saturation, hue, gray = u.unbind(1)
        on = on < self.p_jitter

        def factor(uniform: Tensor, strength: float) -> Tensor:
            low = max(0.0, 1 - strength)
            return torch.where(on, low + (1 + strength - low) * uniform, 1.0)

        return jitter(
            x,
            factor(brightness, self.strengths[0]),
            factor(contrast, self.strengths[1]),
            factor(saturation, self.strengths[2]),
            torch.where(on, self.hue * (2 * hue - 1), 0.0),
            gray < self.p_gray,
        )

    def _finish(self, x: Tensor) -> Tensor:
        return normalise(x, self.column).contiguous(memory_format=torch.channels_last)


def _resample(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """``rows @ x @ cols^T`` for images (B, C, H, W) and matrices (B, out, in)."""
    return rows[:, None] @ x @ cols[:, None].transpose(2, 3)


def _unit(x: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1], from uint8 or from floats that are there already."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x.float()
