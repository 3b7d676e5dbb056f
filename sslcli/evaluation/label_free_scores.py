"""The metrics of ``label_free`` as one score a sample, whose mean is the metric; see ``standard_errors``.

Means and pairs have scores in closed form. For spectra they are pseudo-values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.evaluation.label_free import alpha_req, discriminant, effective_rank, fit, spectrum
from sslcli.evaluation.standard_errors import pseudo_values


class Drawn(NamedTuple):
    """The features of one representation that the metrics read."""

    clean: Tensor  # (N, D) of clean views
    one: Tensor  # (N, D) of a random view of each sample
    two: Tensor  # (N, D) of another
    groups: Tensor | None = None  # (n, q, D) of q random views of n samples


def _rankme(drawn: Drawn) -> Tensor:
    x = drawn.clean.double()
    if len(x) < x.shape[1]:  # the same singular values, for any weights of the rows
        x = torch.linalg.qr(x.T, mode="r").R.T
    return pseudo_values(lambda w: effective_rank(torch.linalg.svdvals(x * w.sqrt()[:, None]), 1e-7), len(x))


def _alignment(drawn: Drawn) -> Tensor:
    one, two = (F.normalize(x.double(), dim=1) for x in (drawn.one, drawn.two))
    return (one - two).pow(2).sum(1)


def _uniformity(drawn: Drawn) -> Tensor:
    """Each sample's share in the mean over pairs, which a weight of one sample changes twice."""
    z = F.normalize(drawn.clean.double(), dim=1)
    potential = torch.cat([(4 * (rows @ z.T) - 4).exp().sum(1) - 1 for rows in z.split(1024)]) / (len(z) - 1)
    mean = potential.mean()
    return mean.log() + 2 * (potential / mean - 1)


def _dimension_std(drawn: Drawn) -> Tensor:
    z = F.normalize(drawn.clean.double(), dim=1)
    squares, std = (z - z.mean(0)).pow(2), z.std(0, correction=0)
    return (std + (squares - std.pow(2)) / (2 * std).clamp(min=1e-30)).mean(1)


def _lidar(drawn: Drawn) -> Tensor:
    groups = drawn.groups
    assert groups is not None
    return pseudo_values(lambda w: effective_rank(discriminant(groups, w), 1e-8), len(groups))


def _alpha_req(drawn: Drawn) -> Tensor:
    law = alpha_req(drawn.clean)
    slope = lambda w: -fit(spectrum(drawn.clean, w), law.first, law.last)[0]  # noqa: E731
    return pseudo_values(slope, len(drawn.clean))


def _alpha_req_r2(drawn: Drawn) -> Tensor:
    law = alpha_req(drawn.clean)
    return pseudo_values(lambda w: fit(spectrum(drawn.clean, w), law.first, law.last)[1], len(drawn.clean))


SCORES: Mapping[str, Callable[[Drawn], Tensor]] = {
    "rankme": _rankme,
    "alignment": _alignment,
    "uniformity": _uniformity,
    "dimension_std": _dimension_std,
    "lidar": _lidar,
    "alpha_req": _alpha_req,
    "alpha_req_r2": _alpha_req_r2,
}
