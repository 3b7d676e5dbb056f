"""Optimizers, the parameters exempt from weight decay, and the scaling of the learning rate with the batch size."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from sslcli.config.ranges import Count, NotNegative, Positive, Share
from sslcli.encoders.base import Encoder
from sslcli.encoders.depth import layer_numbers
from sslcli.training.lars import Lars

Groups = list[dict[str, list[nn.Parameter]]]
Scale = Literal["none", "linear", "sqrt"]

_TOKENS = ("token", "pos_embed", "position_bias")


def parameter_groups(modules: Iterable[nn.Module]) -> Groups:
    """Return two groups: parameters with weight decay, and those exempt from it.

    Exempt are biases, norms, tokens, positions and tables of embeddings (``nn.Embedding``): decay would shrink the rows
    of rare words in every step, and gradients reach them in few.
    """
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for module in modules:
        tables = {inner.weight for inner in module.modules() if isinstance(inner, nn.Embedding)}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            last = name.rpartition(".")[2]
            is_exempt = parameter.ndim <= 1 or parameter in tables or any(word in last for word in _TOKENS)
            (exempt if is_exempt else decayed).append(parameter)
    return [{"params": decayed}, {"params": exempt}]


def split_by_depth(optimizer: Optimizer, encoder: Encoder, layer_decay: float) -> None:
    """Split the groups of an optimizer by layers, each with ``layer_decay`` times the rate of the layer above it.

    Layers and rates are those of timm's ``param_groups_layer_decay``, as in fine-tuning: heads are above the last layer
    of the encoder and have the full rate. A group of the encoder has the number of its layer under ``layer``.

    Args:
        optimizer: an optimizer that has made no step; changed in place.
        encoder: the encoder among what it trains.
        layer_decay: a factor above 0 and at most 1.
    """
    numbers = layer_numbers(encoder)
    heads = max(numbers.values(), default=-1) + 1
    layers = {parameter: numbers[name] for name, parameter in encoder.named_parameters()}
    split: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        found: dict[int, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            found[layers.get(parameter, heads)].append(parameter)
        for layer, parameters in sorted(found.items(), reverse=True):  # heads first: theirs is the rate that is logged
            rate = group["lr"] * layer_decay ** (heads - layer)
            split.append({**group, "params": parameters, "lr": rate, "layer": None if layer == heads else layer})
    optimizer.param_groups[:] = split


def scaled_lr(lr: float, scale: Scale, batch_size: int, base_batch: int) -> float:
    """Scale ``lr``, given for a batch of ``base_batch`` samples, to ``batch_size`` (linear: Goyal et al. 2017)."""
    if lr < 0 or base_batch < 1:
        raise ValueError(f"lr={lr} must not be negative and base_batch={base_batch} at least 1")
    ratio = batch_size / base_batch
    return lr * {"none": 1.0, "linear": ratio, "sqrt": ratio**0.5}[scale]


def adamw(
    groups: Groups,
    batch_size: int,
    *,
    lr: NotNegative,
    weight_decay: NotNegative = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: Positive = 1e-8,
    decay_all: bool = False,
    scale: Scale = "none",
    base_batch: Count = 256,
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019), fused; ``decay_all`` also decays biases, norms, tokens and positions."""
    lr = scaled_lr(lr, scale, batch_size, base_batch)
    beta1, beta2 = betas
    decaying = _decaying(groups, weight_decay, decay_all=decay_all)
    return torch.optim.AdamW(decaying, lr, (beta1, beta2), eps, fused=_can_fuse(groups))


def sgd(
    groups: Groups,
    batch_size: int,
    *,
    lr: NotNegative,
    weight_decay: NotNegative = 5e-4,
    momentum: Share = 0.9,
    nesterov: bool = False,
    decay_all: bool = False,
    scale: Scale = "none",
    base_batch: Count = 256,
) -> Optimizer:
    """Stochastic gradient descent with momentum, fused; ``decay_all`` also decays biases, norms, tokens, positions."""
    lr = scaled_lr(lr, scale, batch_size, base_batch)
    decaying = _decaying(groups, weight_decay, decay_all=decay_all)
    return torch.optim.SGD(decaying, lr, momentum, nesterov=nesterov, fused=_can_fuse(groups))


def lars(
    groups: Groups,
    batch_size: int,
    *,
    lr: NotNegative,
    exempt_lr: NotNegative | None = None,
    weight_decay: NotNegative = 1e-6,
    momentum: Share = 0.9,
    trust_coeff: NotNegative = 0.001,
    decay_all: bool = False,
    scale: Scale = "linear",
    base_batch: Count = 256,
) -> Optimizer:
    """LARS (You et al. 2017): weights have layer-wise rates, with and without weight decay.

    As in the code of SimCLR, BYOL and their followers, biases, norms, tokens and positions have neither, and the rate
    ``exempt_lr``, which is ``lr`` if it is null. With ``decay_all`` they decay and have layer-wise rates, too (VISSL).
    """
    weights, exempt = _decaying(groups, weight_decay, decay_all=decay_all)
    exempt["adapt"] = decay_all
    exempt["lr"] = scaled_lr(lr if exempt_lr is None else exempt_lr, scale, batch_size, base_batch)
    lr = scaled_lr(lr, scale, batch_size, base_batch)
    return Lars([weights, exempt], lr, momentum=momentum, trust_coeff=trust_coeff)


def timm(
    groups: Groups,
    batch_size: int,
    *,
    name: str = "lamb",
    lr: NotNegative = 1e-3,
    weight_decay: NotNegative = 0.05,
    options: Mapping[str, Any] | None = None,
    scale: Scale = "none",
    base_batch: Count = 256,
) -> Optimizer:
    """Build timm's optimizer ``name``; ``options`` are its further arguments, such as ``betas``."""
    from timm.optim import create_optimizer_v2, list_optimizers

    known = list_optimizers(exclude_filters=["adahessian", "kron*"])  # second order; random state outside checkpoints
    if name.removeprefix("lookahead_") not in known:
        hint = "".join(f" Did you mean '{near}'?" for near in difflib.get_close_matches(name.lower(), known, n=1))
        raise ValueError(f"name={name} is not an optimizer of timm that ssl-train can run and resume exactly.{hint}")
    lr = scaled_lr(lr, scale, batch_size, base_batch)
    try:
        return create_optimizer_v2(_decaying(groups, weight_decay), name, lr, **(options or {}))
    except (AssertionError, ImportError, IndexError, TypeError) as error:
        raise ValueError(f"timm cannot build the optimizer {name}: {error}") from error


def _decaying(groups: Groups, weight_decay: float, *, decay_all: bool = False) -> list[dict[str, Any]]:
    if weight_decay < 0:
        raise ValueError(f"weight_decay={weight_decay} must not be negative")
    return [{**groups[0], "weight_decay": weight_decay}, {**groups[1], "weight_decay": weight_decay * decay_all}]


def _can_fuse(groups: Groups) -> bool:
    return all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
