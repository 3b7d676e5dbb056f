"""Formats that write something else than the encoder."""

import torch

from sslcli.export.timm import Timm


class Zeros(Timm):
    """A format with a mistake: it writes other numbers than the encoder's."""

    def weights(self, encoder, target, model):
        return {name: torch.zeros_like(t) for name, t in super().weights(encoder, target, model).items()}


class Dropped(Timm):
    """A format that forgets a tensor."""

    def weights(self, encoder, target, model):
        found = super().weights(encoder, target, model)
        del found["norm.bias"]
        return found
