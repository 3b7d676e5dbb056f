"""``sslcli.load``: a trained encoder with its preprocessing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sslcli.components import restore_encoder
from sslcli.config.instantiate import allow
from sslcli.config.sections import expand
from sslcli.encoders.base import Encoder
from sslcli.pretrained.safetensors_io import read_export
from sslcli.training.resume import open_run
from sslcli.views.base import Views


class Pretrained(nn.Module):
    """A trained encoder with its preprocessing, in eval mode."""

    def __init__(self, encoder: Encoder, views: Views) -> None:
        super().__init__()
        self.encoder, self.views = encoder, views
        self.dim = encoder.dim
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, dim) of raw samples: images are uint8 (B, C, H, W) or floats in [0, 1], of any size."""
        view = self.views.clean({self.views.field: x})
        pooled: Tensor = self.encoder(view).pooled
        return pooled


def load(run: str | Path, *, device: str = "cpu", plugins: tuple[str, ...] = ()) -> Pretrained:
    """The encoder of a run directory, a checkpoint or a safetensors export, ready for raw samples.

    Raises:
        UserError: no such run, a damaged file, or a part from a package that ``plugins`` does not name.
    """
    allow(plugins)
    exported = Path(run).suffix == ".safetensors"
    state = read_export(expand(str(run))) if exported else open_run(str(run))[1]
    encoder, views = restore_encoder(state, torch.device(device))
    return Pretrained(encoder, views.to(device))
