"""Views that differ by dropout only (SimCSE, Gao et al. 2021, arXiv:2104.08821): measurements of views keep it on.

In eval mode an encoder makes equal features of equal inputs: their alignment would be 0 and their mutual information
infinite, whatever was learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sslcli.encoders.base import Encoder
from sslcli.encoders.batchnorm import batch_norms
from sslcli.randomness import seed_torch
from sslcli.types import View


def are_equal(one: View, two: View) -> bool:
    """Return whether two views of the same samples are the same numbers of the same column."""
    return one.field == two.field and one.x.shape == two.x.shape and torch.equal(one.x, two.x)


@contextmanager
def dropping(encoder: Encoder, seed: int, device: torch.device) -> Iterator[None]:
    """Run a ``with`` block in train mode, but with BatchNorm's running statistics: dropout is drawn from ``seed``.

    Afterwards torch's generators and the modes of all modules are as they were before.
    """
    modes = [(module, module.training) for module in encoder.modules()]
    own = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(own, device_type=device.type if own else "cuda"):
        seed_torch(seed, device)
        encoder.train()
        for norm in batch_norms(encoder):
            norm.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
