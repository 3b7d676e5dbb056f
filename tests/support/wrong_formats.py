"""Formats that write wrong files."""

import torch

from sslcli.export.timm import Timm


class Zeros(Timm):
    """A wrong format that writes zeros instead of the encoder's numbers."""

    def weights(self, encoder, target, model):
        return {name: torch.zeros_like(t) for name, t in super().weights(encoder, target, model).items()}


class Dropped(Timm):
    """A wrong format that omits a tensor."""

    def weights(self, encoder, target, model):
        found = super().weights(encoder, target, model)
        del found["norm.bias"]
        return found
