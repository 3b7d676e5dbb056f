"""An encoder with a linear head, its parameters numbered by depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from sslcli.encoders.base import Encoder
from sslcli.types import View


class Classifier(nn.Module):
    """Class scores from the pooled features; the head starts near 0 (as MAE's and BEiT's)."""

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def forward(self, view: View) -> Tensor:
        """(B, C) scores."""
        scores: Tensor = self.head(self.encoder(view).pooled)
        return scores

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """What timm asks a model for: the layer that a parameter's name belongs to, the head being the last."""
        layers = {f"encoder.{name}": layer for name, layer in layer_numbers(self.encoder).items()}
        last = max(layers.values(), default=-1) + 1
        return lambda name: layers.get(name, last)


def layer_numbers(encoder: Encoder) -> dict[str, int]:
    """The depth of each parameter by its name, from 0.

    timm's models say it themselves. Elsewhere a layer begins with each weight of two or more dimensions, in the
    order in which a module lists its parameters: a norm belongs to the convolution before it.
    """
    model: Any = getattr(encoder, "model", None)
    if hasattr(model, "group_matcher"):
        known = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
        own = {name: 0 for name, _ in encoder.named_parameters()}  # the mask token and its like, which nothing reads
        return own | {f"model.{name}": layer for name, layer in known.items()}
    found: dict[str, int] = {}
    layer = -1
    for name, parameter in encoder.named_parameters():
        layer += parameter.ndim >= 2
        found[name] = max(layer, 0)
    return found


@torch.inference_mode()
def predict(classifier: Classifier, view: View) -> Tensor:
    """(B,) the most likely classes, on the CPU."""
    return classifier(view).argmax(1).cpu()
