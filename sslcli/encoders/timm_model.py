"""Builds timm models with random weights for a given image size, which may be much smaller than timm's default.

Models are adapted to small images in two ways. A ViT or a Swin is built for a fixed size, with smaller patches. A
ResNet or a ConvNeXt reads any size; its first convolution is replaced by one of half the stride.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from timm.layers import DropPath, GroupNorm1
from torch import nn

from sslcli.encoders.batchnorm import batch_norms

RGB = 3  # channels of timm's models, unless they are built for others


@dataclass(frozen=True)
class Blueprint:
    """Arguments that build the same architecture again: ``timm.create_model(name, num_classes=0, **options)``."""

    name: str
    options: Mapping[str, Any]

    def create(self, **more: Any) -> Any:
        """Build the model without a classifier, with random weights and timm's own stem."""
        return timm.create_model(self.name, pretrained=False, num_classes=0, **self.options, **more)


def check_name(name: str) -> None:
    """Raise ValueError if timm has no model of this name; the message lists similar names."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=5)
        hint = f"Near: {', '.join(near)}." if near else "timm.list_models() lists all names."
        raise ValueError(f"timm has no model '{name}'. {hint}")


def make_model(
    name: str,
    size: int,
    channels: int,
    patch_size: int | None,
    shape: Mapping[str, int | None],
    small: bool,
    norm: str | None,
    drop_path: float,
) -> tuple[Any, Blueprint]:
    """Build a model for images of ``channels`` channels and ``size`` pixels a side; return it with its blueprint.

    ``shape`` are arguments of timm's model that change its size, such as ``embed_dim``; null ones are left out. The
    other arguments are documented in ``Timm``.

    Raises:
        ValueError: timm cannot build the model with these options, or the model cannot have such patches or norm.
    """
    options: dict[str, Any] = {} if channels == RGB else {"in_chans": channels}
    chosen = _built_for_one_size(name) and patch_size is None and small
    if _built_for_one_size(name):
        options["img_size"] = size
        if chosen:
            patch_size = _small_patch_size(name, size)
        if patch_size is not None:
            _check_divides(patch_size, size)
            options["patch_size"] = patch_size
    elif patch_size is not None:
        raise ValueError(f"{name} has no patches; leave patch_size null")
    options |= {key: value for key, value in shape.items() if value is not None}
    return _with_norm(Blueprint(name, options), norm, {"drop_path_rate": drop_path} if drop_path else {}, chosen)


def _built_for_one_size(name: str) -> bool:
    config = timm.get_pretrained_cfg(name)
    return config is not None and config.fixed_input_size


def _small_patch_size(name: str, size: int) -> int:
    """Return the smallest divisor of ``size`` that is at least 4, or 2 for a Swin, which merges patches later."""
    smallest = 2 if name.startswith("swin") else 4
    return next(n for n in range(smallest, size + 1) if size % n == 0)


def _check_divides(patch_size: int, size: int) -> None:
    if patch_size < 1 or size % patch_size:
        fitting = ", ".join(str(n) for n in range(1, size // 2 + 1) if size % n == 0)
        raise ValueError(f"patch_size={patch_size} does not divide image_size={size}; use one of {fitting}")


def _with_norm(blueprint: Blueprint, norm: str | None, rate: Mapping[str, float], small: bool) -> tuple[Any, Blueprint]:
    """Build the blueprint's model; if ``norm`` is ``layer``, with GroupNorm of one group instead of BatchNorm.

    ``small`` says that the size of the patches was chosen for small images.
    """
    name, options = blueprint.name, blueprint.options
    try:
        model = blueprint.create(**rate)
        if norm == "layer" and batch_norms(model):
            blueprint = Blueprint(name, {**options, "norm_layer": GroupNorm1})
            model = blueprint.create(**rate)
    except (TypeError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        for_size = blueprint.options.keys() <= {"in_chans", "img_size", "patch_size"}
        if small and for_size and isinstance(error, (TypeError, ZeroDivisionError)):
            raise ValueError(
                f"{name} has no small stem: its patches have one size. Set encoder.stem=standard"
            ) from error
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ValueError(f"timm cannot build {name} with {given}: {error}") from error
    if norm == "layer" and batch_norms(model):
        raise ValueError(f"{name} has BatchNorm that timm cannot replace; leave norm null")
    if norm == "batch" and not batch_norms(model):
        raise ValueError(f"{name} has no BatchNorm; norm must be layer or null")
    if not rate:
        keep_all_paths(model)
    return model, blueprint


def keep_all_paths(model: nn.Module) -> None:
    """Turn stochastic depth off, which timm's Swin has by default."""
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0


def shrink_stem(model: Any, name: str) -> None:
    """Halve the stride of the first convolution and remove the pooling after it, to keep the detail of small images.

    The new kernel is 3x3 (a ResNet's stem for CIFAR, He et al. 2016, section 4.2), or as wide as its stride if the
    convolution embeds patches (ConvNeXt). A model that is built for a fixed size has small patches already and is not
    changed.

    Raises:
        ValueError: the model does not begin with a convolution that has a stride.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or config.fixed_input_size:
        return
    first_conv: Any = config.first_conv
    old = model.get_submodule(first_conv) if isinstance(first_conv, str) else None
    if not isinstance(old, nn.Conv2d) or old.stride[0] < 2:
        raise ValueError(f"{name} has no known small stem. Set encoder.stem=standard")
    stride = old.stride[0] // 2
    embeds_patches = old.kernel_size == old.stride
    kernel, padding = (stride, 0) if embeds_patches else (3, 1)
    new = nn.Conv2d(old.in_channels, old.out_channels, kernel, stride, padding, bias=old.bias is not None)
    parent, _, last = first_conv.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
    if isinstance(getattr(model, "maxpool", None), nn.Module):
        model.maxpool = nn.Identity()
