"""Contrastive losses as plain functions: exact, in float32 or better, in O(N D) memory.

Embeddings may have any norm and are normalised here; temperatures are numbers or tensors () that may be learned.
Row i of ``z1`` and row i of ``z2`` are two views of one sample. ``same`` (N,) numbers the samples by what they are,
where a batch may hold one thing twice, such as a text: samples with equal numbers are no negatives of each other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sslcli.objectives.losses.equal_samples import num_equal, numbered
from sslcli.objectives.losses.tiled_logsumexp import cross_logsumexp, pair_softplus_sum, rows_logsumexp, self_logsumexp


def nt_xent(z1: Tensor, z2: Tensor, temperature: float | Tensor, same: Tensor | None = None) -> Tensor:
    """SimCLR's loss (Chen et al. 2020, equation 1): classify the positive among the 2N - 1 other views.

    The mean is over the 2N anchors. It is log(2N - 1) when all embeddings are equal, and 0 for a single pair.

    Args:
        z1: (N, D) embeddings of the first views.
        z2: (N, D) embeddings of the second views.
        temperature: divides the cosine similarities.
        same: (N,) int64, or None.
    """
    z1, z2 = _normalised(z1, z2)
    scale = _inverse(temperature, z1)
    return self_logsumexp(torch.cat([z1, z2]), scale, same=_twice(same)).mean() - scale * (z1 * z2).sum(1).mean()


def info_nce(
    z1: Tensor,
    z2: Tensor,
    temperature: float | Tensor,
    symmetric: bool = True,
    same: Tensor | None = None,
    log_q: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, equation 4; CLIP, SimCSE, MoCo v3): classify the positive among N views.

    The candidates of a first view are the N second views; other first views are no negatives. The loss is log N when
    all embeddings are equal.

    Args:
        z1: (N, D) embeddings of the first views, the anchors.
        z2: (N, D) embeddings of the second views.
        temperature: divides the cosine similarities.
        symmetric: take the mean of the losses with anchors ``z1`` and with anchors ``z2`` (CLIP), else the first only.
        same: (N,) int64, or (N, K), of which one equal number is enough, or None.
        log_q: of the candidates ``z1``, and of ``z2``, the logarithm (N,) of how often each is drawn into a batch,
            which is subtracted from their logits: else what is drawn often learns to score low (Yi et al. 2019, RecSys,
            equation 5). With it the loss of N samples estimates a softmax over all candidates.
    """
    z1, z2 = _normalised(z1, z2)
    scale = _inverse(temperature, z1)
    positive = scale * (z1 * z2).sum(1).mean()
    if any(q is not None for q in log_q):
        sides = ((z1, z2, log_q[1]), (z2, z1, log_q[0]))[: 2 if symmetric else 1]
        losses = [
            _shifted(a, b, scale, None if q is None else -q, same).mean() + (0 if q is None else q.to(a.dtype).mean())
            for a, b, q in sides
        ]
        return torch.stack(losses).mean() - positive
    if not symmetric:
        return rows_logsumexp(z1, z2, scale, same=same).mean() - positive
    among_z2, among_z1 = cross_logsumexp(z1, z2, scale, same=same)
    return (among_z2.mean() + among_z1.mean()) / 2 - positive


def info_nce_of_ids(z1: Tensor, z2: Tensor, temperature: float | Tensor, ids: Tensor, symmetric: bool = True) -> Tensor:
    """InfoNCE between two views of the different ids of a batch: each id counts once, as anchor and as candidate.

    It is ``info_nce`` of one row of each id, as in SimGCL's code. Their number is known on a CPU only without waiting;
    elsewhere all rows stay, and of n rows of one id each counts 1 / n.

    Args:
        z1: (N, D) embeddings of the first views; rows of equal ids are equal.
        z2: (N, D) embeddings of the second views.
        temperature: divides the cosine similarities.
        ids: (N,) int64.
        symmetric: as in ``info_nce``.
    """
    if ids.device.type == "cpu":  # several times faster where a batch has each id several times
        in_order, order = ids.sort(stable=True)
        first = order[F.pad(in_order.diff() != 0, (1, 0), value=True)]
        return info_nce(z1[first], z2[first], temperature, symmetric)
    return counted_once(z1, z2, temperature, ids, symmetric)


def counted_once(z1: Tensor, z2: Tensor, temperature: float | Tensor, ids: Tensor, symmetric: bool = True) -> Tensor:
    """Return ``info_nce_of_ids`` without knowing how many different ids there are."""
    z1, z2 = _normalised(z1, z2)
    scale = _inverse(temperature, z1)
    count = num_equal(ids).to(z1.dtype)
    sides = ((z1, z2), (z2, z1))[: 2 if symmetric else 1]
    among = torch.stack([_shifted(a, b, scale, -count.log(), None) for a, b in sides]).mean(0)
    return ((among - scale * (z1 * z2).sum(1)) / count).sum() / (1 / count).sum()


def _shifted(a: Tensor, b: Tensor, scale: float | Tensor, shift: Tensor | None, same: Tensor | None) -> Tensor:
    """Return the log of the sum over j of exp(scale a_i . b_j + shift_j): the shift is one more dimension of both."""
    if shift is None:
        return rows_logsumexp(a, b, scale, same=same)
    wide = torch.cat([a, torch.ones_like(a[:, :1])], 1), torch.cat([b, (shift.to(b.dtype) / scale)[:, None]], 1)
    return rows_logsumexp(*wide, scale, same=same)


def decoupled(z1: Tensor, z2: Tensor, temperature: float | Tensor, same: Tensor | None = None) -> Tensor:
    """DCL (Yeh et al. 2022, arXiv 2110.06848): NT-Xent without the positive in the denominator.

    The mean is over the 2N anchors and may be negative. An anchor without negatives, as a single pair is, counts as 0.

    Args:
        z1: (N, D) embeddings of the first views.
        z2: (N, D) embeddings of the second views.
        temperature: divides the cosine similarities.
        same: (N,) int64, or None.
    """
    z1, z2 = _normalised(z1, z2)
    scale = _inverse(temperature, z1)
    positive = scale * (z1 * z2).sum(1)
    if len(z1) == 1:
        return 0 * positive.mean()
    among = self_logsumexp(torch.cat([z1, z2]), scale, exclude_partner=True, same=_twice(same))
    if same is None:
        return among.mean() - positive.mean()
    each = among - torch.cat([positive, positive])
    return torch.where(among == -math.inf, torch.zeros_like(each), each).mean()


def sigmoid(z1: Tensor, z2: Tensor, scale: float | Tensor, bias: float | Tensor, same: Tensor | None = None) -> Tensor:
    """SigLIP's loss (Zhai et al. 2023, arXiv 2303.15343): binary classification of each of the N^2 pairs.

    The sum over all pairs is divided by N. As published, scale and bias are learned (the scale as its logarithm),
    from 10 and -10.

    Args:
        z1: (N, D) embeddings of the first views.
        z2: (N, D) embeddings of the second views.
        scale: multiplies the cosine similarities.
        bias: added to the scaled similarities; compensates for the N - 1 negatives of each positive.
        same: (N,) int64, or None; the pairs that are no negatives are left out of the sum.
    """
    z1, z2 = _normalised(z1, z2)
    return pair_softplus_sum(z1, z2, scale, bias, same=same) / len(z1)


def supervised(z1: Tensor, z2: Tensor, labels: Tensor, temperature: float | Tensor) -> Tensor:
    """SupCon's loss, "out" form (Khosla et al. 2020, arXiv 2004.11362, equation 2), mean over the 2N anchors.

    The positives of an anchor are all other views of its class. It equals NT-Xent when all labels are different.

    Args:
        z1: (N, D) embeddings of the first views.
        z2: (N, D) embeddings of the second views.
        labels: (N,) class of each sample, any integers.
        temperature: divides the cosine similarities.
    """
    z = torch.cat(_normalised(z1, z2))
    scale = _inverse(temperature, z)
    # sum over p of z_i . z_p = z_i . (class sum - z_i), without pairs.
    number = numbered(labels)
    number = torch.cat([number, number])
    sums = torch.zeros_like(z).index_add(0, number, z)
    counts = torch.zeros_like(z[:, 0]).index_add(0, number, torch.ones_like(z[:, 0]))
    positive = (z * (sums[number] - z)).sum(1) / (counts[number] - 1)
    return self_logsumexp(z, scale).mean() - scale * positive.mean()


def _twice(same: Tensor | None) -> Tensor | None:
    """Return the numbers of the rows [z1; z2]."""
    return None if same is None else torch.cat([same, same])


def _normalised(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """Normalise the rows of both to norm 1, in the widest of their dtypes and float32."""
    if z1.shape != z2.shape or z1.dim() != 2:
        raise ValueError(f"z1 and z2 must both be (N, D), and are {tuple(z1.shape)} and {tuple(z2.shape)}")
    dtype = torch.promote_types(torch.promote_types(z1.dtype, z2.dtype), torch.float32)
    return F.normalize(z1.to(dtype), dim=1), F.normalize(z2.to(dtype), dim=1)


def _inverse(temperature: float | Tensor, like: Tensor) -> float | Tensor:
    """Return 1 / temperature; a tensor is cast first, as the inverse would be rounded in half precision."""
    return 1 / (temperature.reshape(()).to(like.dtype) if isinstance(temperature, Tensor) else temperature)
