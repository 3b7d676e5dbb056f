"""SimMIM, masked image modelling (Xie et al. 2021, arXiv:2111.09886)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives.base import Objective
from sslcli.objectives.masking import random_patches, scaled_to
from sslcli.types import Loss, View


class SimMIM(Objective):
    """Hide random patches, predict their pixels with one linear layer a token, L1 on the hidden pixels.

    The target is the view's geometry without photometric jitter, normalised by the dataset's statistics.
    The masked view is one pass of its own.

    Args:
        encoder: what is trained; it hides what the mask says in its own way.
        mask_ratio: share of hidden patches, rounded up.
        mask_patch: pixels a side of a hidden patch; null fits the image (default_mask_patch).
    """

    num_views = 1
    needs_target = True

    def __init__(self, encoder: Encoder, *, mask_ratio: float = 0.6, mask_patch: int | None = None) -> None:
        super().__init__()
        images = {name: field for name, field in encoder.view_spec.items() if len(field.shape) == 3}
        if not encoder.token_dim or not images:
            raise ValueError("simmim predicts pixels from tokens; this encoder has no image tokens to hide")
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio={mask_ratio} must be between 0 and 1")
        name, field = next(iter(images.items()))
        channels, height, width = field.shape
        self.grid = encoder.grid(View(torch.empty(0, *field.shape), name))
        patch = height // self.grid[0]
        self.mask_patch = default_mask_patch(height, patch, encoder.stride) if mask_patch is None else mask_patch
        if self.mask_patch < 1 or height % self.mask_patch or width % self.mask_patch:
            raise ValueError(
                f"mask_patch={self.mask_patch} does not divide the {height} x {width} image; "
                f"use one of {', '.join(str(n) for n in range(1, height + 1) if height % n == 0)}"
            )
        if self.mask_patch % patch:
            raise ValueError(f"mask_patch={self.mask_patch} is not a multiple of the encoder's patch of {patch} pixels")
        self.mask_ratio = mask_ratio
        self.stride = encoder.stride
        self.channels = channels
        self.decoder = nn.Linear(encoder.token_dim, channels * encoder.stride**2)

    def project(self, features: Features) -> dict[str, Tensor]:
        view = features.views[0]
        height, width = view.x.shape[-2:]
        mask = random_patches(features.randomness, height // self.mask_patch, width // self.mask_patch, self.mask_ratio)
        if view.target is None:
            raise ValueError("simmim needs views with a target; choose an image pipeline for `views`")
        tokens = features.masked(0, scaled_to(mask, *self.grid)).tokens
        hidden = scaled_to(mask, height, width)
        error, count = masked_l1(self._pixels(tokens, height, width), view.target, hidden)
        return {"error": error, "count": count}

    def _pixels(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """(B, C, H, W) from tokens (B, T, D): linear, then pixels out of channels; the overhang is cut off."""
        rows, cols = math.ceil(height / self.stride), math.ceil(width / self.stride)
        maps = self.decoder(tokens).transpose(1, 2).unflatten(2, (rows, cols))
        return F.pixel_shuffle(maps, self.stride)[..., :height, :width]

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        total = outputs["error"].sum() / (outputs["count"].sum() + 1e-5) / self.channels
        return Loss(total, {"masked_l1": total.detach()})


def masked_l1(prediction: Tensor, target: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Per sample, the summed absolute error over the hidden pixels and their count (channels count once).

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W).
        hidden: (B, H, W) bool.

    Returns:
        error (B,) and count (B,), float32: their ratio over the batch, divided by C, is the published loss.
    """
    error = (prediction.float() - target.float()).abs().sum(1)
    return (error * hidden).flatten(1).sum(1), hidden.flatten(1).sum(1, dtype=torch.float32)


def default_mask_patch(height: int, patch: int, stride: int) -> int:
    """32 pixels as published on images of 128 and more, else an eighth of the side or one output token.

    Args:
        height: of the image.
        patch: the encoder's patch, which the answer is a multiple of; 1 for a CNN.
        stride: pixels a side of an output token.
    """
    wish = 32 if height >= 128 else max(stride, height // 8)
    fitting = [n for n in range(patch, height + 1, patch) if height % n == 0]
    return next((n for n in fitting if n >= wish), fitting[-1])
