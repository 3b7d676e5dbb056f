"""BatchNorm over the batch of all processes (``train.sync_norm``): torch's on a GPU, the same on a CPU.

Every process sends the count, mean and variance of each channel. They are combined as in Chan et al. 1983 ("Algorithms
for Computing the Sample Variance", equation 2.1) in double precision and in the order of the ranks, so that all
processes have the same statistics to the bit. The backward pass adds up two sums a channel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sslcli.errors import UserError


class SyncNorm(nn.SyncBatchNorm):
    """torch's SyncBatchNorm, which on a CPU works too. Outside a process group it is BatchNorm."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        if input.device.type != "cpu" or not self.training or not dist.is_initialized():
            return super().forward(input)
        y, mean, variance, count = _Normalised.apply(input, self.weight, self.bias, self.eps)
        self._move_statistics(mean, variance * (count / max(count - 1, 1)))
        return y

    @torch.no_grad()
    def _move_statistics(self, mean: Tensor, unbiased: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(unbiased, share)


class SyncNormAct(SyncBatchNormAct, SyncNorm):
    """BatchNorm with the activation that timm's ``BatchNormAct2d`` has in it."""


_KINDS: dict[type[_BatchNorm], type[SyncNorm]] = {
    nn.BatchNorm1d: SyncNorm,
    nn.BatchNorm2d: SyncNorm,
    nn.BatchNorm3d: SyncNorm,
    BatchNormAct2d: SyncNormAct,
}


def synchronise(*modules: nn.Module) -> None:
    """Replace every BatchNorm inside the modules by one over all processes, with the same weights and statistics.

    Raises:
        UserError: a module has a kind of BatchNorm that is not known here.
    """
    for module in modules:
        for parent in list(module.modules()):
            for name, child in parent.named_children():
                if isinstance(child, _BatchNorm):
                    setattr(parent, name, _synchronised(child))


def _synchronised(norm: _BatchNorm) -> SyncNorm:
    kind = _KINDS.get(type(norm))
    if kind is None:
        raise UserError(f"train.sync_norm: {type(norm).__name__} of this model cannot be put together over processes.")
    made = kind(norm.num_features, norm.eps, norm.momentum)
    made.__dict__.update(norm.__dict__)  # weights, statistics, mode, and the activation of a BatchNormAct2d
    return made


class _Normalised(torch.autograd.Function):
    """x (B, C, ...) -> y of the same shape, and the mean (C,), variance (C,) and count of each channel everywhere."""

    @staticmethod
    @torch.compiler.disable
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, _all_but_channels(x), correction=0)
        count = x.numel() // x.shape[1]
        mine = torch.stack([mean, variance, torch.full_like(mean, count)]).double()
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, mine)
        means, variances, counts = torch.stack(parts, 1)  # (ranks, C) each
        total = counts.sum(0)
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        count = int(total[0])
        mean, variance = mean.to(wide.dtype), variance.to(wide.dtype)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt())
        ctx.count = count
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance, count

    @staticmethod
    @torch.compiler.disable
    def backward(ctx: Any, gradient: Tensor, *of_statistics: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, inverse_std = ctx.saved_tensors
        dims, shape = _all_but_channels(x), (1, -1, *[1] * (x.dim() - 2))
        dy = gradient.to(mean.dtype)
        normed = (x - mean.view(shape)) * inverse_std.view(shape)
        of_weight, of_bias = (dy * normed).sum(dims), dy.sum(dims)
        sums = torch.stack([of_weight, of_bias])
        dist.all_reduce(sums)
        along, level = (part.view(shape) for part in sums / ctx.count)
        scale = inverse_std if weight is None else inverse_std * weight
        dx = (dy - level - normed * along) * scale.view(shape)
        return dx.to(x.dtype), None if weight is None else of_weight, None if weight is None else of_bias, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]
