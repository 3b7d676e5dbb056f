"""The depth of each parameter of an encoder, for learning rates that fall with the distance from the heads."""

from __future__ import annotations

from typing import Any

from sslcli.encoders.base import Encoder


def layer_numbers(encoder: Encoder) -> dict[str, int]:
    """Return the depth of each parameter by name, from 0.

    timm's models define it. For other encoders each weight of two or more dimensions begins a layer, in the order in
    which the module lists its parameters, so that a norm belongs to the convolution before it.
    """
    model: Any = getattr(encoder, "model", None)
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters  # a second's import that few runs need

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
