"""Multi-crop: small views predict the targets of the full-size views, and are never targets themselves.

Every view predicts the targets of the full-size views except its own (SwAV, Caron et al. 2020, arXiv:2006.09882,
on multi-crop; DINO, Caron et al. 2021, arXiv:2104.14294, equation 3). With T targets from the two full-size views
and L small views there are T ordered pairs of full-size views and T L pairs (small view, target). All T + T L pairs
have the same weight, and the loss keeps the scale that it has without small views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sslcli.encoders.base import Encoder
from sslcli.errors import UserError
from sslcli.features import Features
from sslcli.objectives.heads import widened
from sslcli.run_dir.formatting import first_line
from sslcli.types import View


def local_rows(features: Features, num_local: int, project: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return ``{"local": (B, L, D)}``, the projections of the small views; {} where there are none.

    All small views go through the encoder and ``project`` as one batch, separate from the full-size views.

    Args:
        features: features of a micro-batch, the small views last.
        num_local: number of small views.
        project: the heads: a function from pooled vectors (L * B, dim) to (L * B, D).
    """
    if not num_local:
        return {}
    pooled = torch.cat([encoded.pooled for encoded in features.clean(*range(-num_local, 0))])
    return {"local": torch.stack(widened(project(pooled)).chunk(num_local), dim=1)}


def with_local(
    full: Tensor,
    local: Tensor | None,
    targets: Sequence[Tensor],
    pair: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return the loss over all pairs: (full + sum over l and t of pair(local_l, target_t)) / (1 + L).

    Args:
        full: the loss of the full-size views: for every target, one pair with the other view.
        local: (N, L, D) predictions from the small views; None where there are none, and then the loss is ``full``.
        targets: targets from the full-size views, (N, D) each.
        pair: the loss of one ordered pair, (N, D) predictions and a target, at the scale of its term in ``full``.
    """
    if local is None:
        return full
    added = torch.stack([pair(view, target) for view in local.unbind(1) for target in targets])
    return (full + added.sum()) / (1 + local.shape[1])


@torch.no_grad()
def check_readable(encoder: Encoder, views: Sequence[View], num_local: int) -> None:
    """Check that the encoder reads small views, by encoding one of one sample.

    Args:
        encoder: in eval mode.
        views: the views of a batch, the small views last.
        num_local: number of small views, all of one size.

    Raises:
        UserError: encoding fails, or gives features of another width than for a full-size view.
    """
    if not num_local:
        return
    height, width = views[-1].x.shape[-2:]
    try:
        dim = encoder(views[-1].rows(slice(1))).pooled.shape[1]
        reason = None if dim == encoder.dim else f"it makes {dim} features of them instead of {encoder.dim}"
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = first_line(error).rstrip(".")
    if reason is not None:
        raise UserError(
            f"views.num_local={num_local}: this encoder cannot read small views of {height} x {width} pixels "
            f"({reason}). Change views.local_size, use a ResNet or a ViT, or set views.num_local=0."
        )
