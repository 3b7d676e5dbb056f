"""State dicts for ``timm.create_model``, of any encoder that is a timm model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sslcli.encoders.timm import Timm as TimmEncoder
from sslcli.encoders.timm_model import RGB
from sslcli.export.state_dict import StateDict, Target
from sslcli.types import View


class Timm(StateDict):
    """A state dict that loads strictly into timm's model without a classifier."""

    def target(self, encoder: TimmEncoder) -> Target:
        blueprint = encoder.blueprint
        with torch.device("meta"):
            fresh = blueprint.create()
        return Target(
            imports="import timm",
            create=f"timm.create_model({blueprint.name!r}, num_classes=0{_options(blueprint.options)})",
            fresh=fresh,
            name_of=lambda name: name,
            classifier=None,
            features=_features(encoder),
        )

    def weights(self, encoder: TimmEncoder, target: Target) -> dict[str, Tensor]:
        return dict(encoder.model.state_dict())


def _options(options: Mapping[str, Any]) -> str:
    """Write options as keyword arguments; a class is written by its name in timm.layers."""
    written = (f"timm.layers.{v.__name__}" if isinstance(v, type) else repr(v) for v in options.values())
    return "".join(f", {name}={value}" for name, value in zip(options, written))


@torch.no_grad()
def _features(encoder: TimmEncoder) -> str:
    """Return an expression for the mean over all positions: the model itself, if it pools so, else that of its map."""
    field = next(name for name, column in encoder.spec.items() if column.kind == "image")
    channels, size, _ = encoder.spec[field].shape
    channels = RGB if channels == 1 else channels
    x = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    ours = encoder(View(x, field)).pooled
    if torch.allclose(encoder.model(x), ours, rtol=1e-4, atol=1e-5):
        return "model({x})"
    features = encoder.model.forward_features(x)
    if features.dim() == 3:
        return f"model.forward_features({{x}})[:, {encoder.prefix}:].mean(1)"
    axes = (1, 2) if encoder.channels_last else (2, 3)
    return f"model.forward_features({{x}}).mean({axes})"
