"""An encoder with a linear classification head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sslcli.encoders.base import Encoder
from sslcli.encoders.depth import layer_numbers
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


@torch.inference_mode()
def predict(classifier: Classifier, view: View) -> Tensor:
    """Return the most likely classes (B,), on the CPU."""
    return classifier(view).argmax(1).cpu()
