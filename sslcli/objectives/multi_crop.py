"""Multi-crop: small views predict what the full-size views predict, and are never targets themselves.

Every view predicts the targets of the full-size views except its own (SwAV, Caron et al. 2020, arXiv:2006.09882,
on multi-crop; DINO, Caron et al. 2021, arXiv:2104.14294, equation 3). With two full-size views, or T targets, and L
small views that makes T ordered pairs among the former and T L pairs (small view, target). A loss is the mean
over all T + T L of them, at the scale that it has without small views.
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
    """``{"local": (B, L, D)}``, what ``project`` makes of the small views; nothing where there are none.

    All of them go through the encoder and through ``project`` as one batch, apart from the full-size views.

    Args:
        features: of a micro-batch, the small views last.
        num_local: how many small views there are.
        project: from pooled vectors (L * B, dim) to (L * B, D): the heads.
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
    """The mean over all pairs: (full + sum over l and t of pair(local_l, target_t)) / (1 + L).

    Args:
        full: the loss of the full-size views: to every target one pair with the other view.
        local: (N, L, D) of the small views; None where there are none, and then the loss is ``full``.
        targets: (N, D) each, of full-size views.
        pair: what one ordered pair, (N, D) predictions and a target, adds to ``full``.
    """
    if local is None:
        return full
    added = torch.stack([pair(view, target) for view in local.unbind(1) for target in targets])
    return (full + added.sum()) / (1 + local.shape[1])


@torch.no_grad()
def check_readable(encoder: Encoder, views: Sequence[View], num_local: int) -> None:
    """Encode one small view of one sample.

    Args:
        encoder: in eval mode.
        views: what a pipeline makes, the small views last.
        num_local: how many small views there are, all of one size.

    Raises:
        UserError: the encoder cannot, or makes something else of it than of a full-size view.
    """
    if not num_local:
        return
    height, width = views[-1].x.shape[-2:]
    try:
        made = encoder(views[-1].rows(slice(1))).pooled.shape[1]
        reason = None if made == encoder.dim else f"it makes {made} features of them instead of {encoder.dim}"
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = first_line(error).rstrip(".")
    if reason is not None:
        raise UserError(
            f"views.num_local={num_local}: this encoder cannot read small views of {height} x {width} pixels "
            f"({reason}). Change views.local_size, use a ResNet or a ViT, or set views.num_local=0."
        )
