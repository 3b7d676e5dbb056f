"""Weights into a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import nn

from sslcli.engine.files import write_atomically


def write_weights(module: nn.Module, path: Path, header: Mapping[str, str] | None = None) -> None:
    """All tensors of ``module`` by name, whole or not at all; ``header`` is kept beside them."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in module.state_dict().items()}
    write_atomically(path, lambda file: file.write(save(weights, metadata={"format": "pt", **(header or {})})))
