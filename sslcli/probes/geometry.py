"""Quality without labels."""

from __future__ import annotations

import torch
from torch import Tensor


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al. 2023, arXiv:2210.02885): the effective rank of features (N, D), in [1, min(N, D)].

    exp of the entropy of the normalised singular values, with the paper's epsilon of 1e-7; not centred.
    """
    singular = torch.linalg.svdvals(features.double())
    p = singular / singular.sum().clamp(min=1e-12) + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))
