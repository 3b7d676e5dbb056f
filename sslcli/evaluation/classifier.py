"""An encoder with a linear classification head, and the depth of each parameter for layer-wise learning rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from sslcli.encoders.base import Encoder
from sslcli.types import View


class Classifier(nn.Module):
    """A linear classifier on an encoder's pooled features; the head is initialised near 0 (as in MAE and BEiT)."""

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def forward(self, view: View) -> Tensor:
        """Return the class scores (B, C)."""
        scores: Tensor = self.head(self.encoder(view).pooled)
        return scores

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Return a function from a parameter's name to the number of its layer, as timm expects; the head is last."""
        layers = {f"encoder.{name}": layer for name, layer in layer_numbers(self.encoder).items()}
        last = max(layers.values(), default=-1) + 1
        return lambda name: layers.get(name, last)


def layer_numbers(encoder: Encoder) -> dict[str, int]:
    """Return the depth of each parameter by name, from 0.

    timm's models define it. For other encoders each weight of two or more dimensions begins a layer, in the order in
    which the module lists its parameters, so that a norm belongs to the convolution before it.
    """
    model: Any = getattr(encoder, "model", None)
    if hasattr(model, "group_matcher"):
        known = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
        own = {
            name: 0 for name, _ in encoder.named_parameters()
        }  # for parameters that timm does not know, such as the mask token
        return own | {f"model.{name}": layer for name, layer in known.items()}
    found: dict[str, int] = {}
    layer = -1
    for name, parameter in encoder.named_parameters():
        layer += parameter.ndim >= 2
        found[name] = max(layer, 0)
    return found


@torch.inference_mode()
def predict(classifier: Classifier, view: View) -> Tensor:
    """Return the most likely classes (B,), on the CPU."""
    return classifier(view).argmax(1).cpu()
