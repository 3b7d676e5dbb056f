"""Small generated images, a smooth prototype for each class plus noise, for test runs of a few seconds."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from sslcli.config.ranges import Count, Side
from sslcli.data.base import Columns, Dataset, with_held_out
from sslcli.types import Field, Spec


def synthetic(
    *,
    num_samples: Count = 2000,
    num_classes: int = 10,
    size: Side = 32,
    channels: Count = 3,
    seed: int = 0,
    holdout: float | None = None,
) -> Dataset:
    """Generate images of ``channels`` x ``size`` x ``size`` uint8 pixels, which depend on ``seed`` only."""
    if min(num_samples, num_classes, size, channels) < 1:
        raise ValueError("num_samples, num_classes, size and channels must be at least 1")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % num_classes
    coarse = torch.rand(num_classes, channels, 4, 4, generator=generator)
    prototypes = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    noise = 0.1 * torch.randn(num_samples, channels, size, size, generator=generator)
    images = ((prototypes[labels] + noise).clamp(0, 1) * 255).to(torch.uint8)
    mean, std = (0.5,) * channels, (0.25,) * channels
    spec = Spec(image=Field("image", (channels, size, size), torch.uint8, mean=mean, std=std))
    return with_held_out(Columns(spec, {"image": images}, labels), None, holdout)
