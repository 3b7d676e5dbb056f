"""Any image model of timm as an encoder: ResNet, ConvNeXt, ViT, Swin and the rest."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
from timm.layers import Format, GroupNorm1, PatchEmbed, use_fused_attn
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sslcli.encoders.base import Encoder, hide_pixels, pool_cells, resized
from sslcli.encoders.batchnorm import batch_norms
from sslcli.randomness import to_device
from sslcli.types import Encoded, Spec, View

SMALL = 64  # images up to this many pixels a side get a small stem


class Timm(Encoder):
    """A timm model without its classifier; grey images are given to it as three equal channels.

    A model that first cuts its image into patches hides them by a learned mask token, before positions are
    added (SimMIM, section 3.1); any other model hides pixels. A ViT can also leave the hidden patches out
    (MAE, section 3). A CNN reads images of any size, a ViT those of whole patches, with its positions
    interpolated bicubically (DINO, arXiv:2104.14294).

    Args:
        spec: the dataset's columns.
        name: timm's name of the model.
        field: the image column to read.
        image_size: pixels a side; null takes the dataset's.
        patch_size: pixels a side of a patch, for models that have patches; null fits the image.
        num_heads: attention heads of every block of a ViT; null takes the model's own.
        stem: ``small`` keeps the resolution of small images (a ResNet's 3x3 stride 1 without pooling, a
            halved stride or patch elsewhere); ``auto`` is small up to 64 pixels.
        norm: ``batch`` or ``layer`` (a CNN's BatchNorm becomes GroupNorm with one group); null takes the
            model's own. A transformer accepts only ``layer``.
        drop_path: rate of stochastic depth.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        name: str,
        field: str = "image",
        image_size: int | None = None,
        patch_size: int | None = None,
        num_heads: int | None = None,
        stem: Literal["auto", "standard", "small"] = "auto",
        norm: Literal["batch", "layer"] | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise ValueError(f"timm has no model '{name}'. {_near(name)}")
        self.spec = resized(spec, field, image_size)
        size = self.spec[field].shape[1]
        small = stem == "small" or (stem == "auto" and size <= SMALL)
        pretrained = timm.get_pretrained_cfg(name)
        options: dict[str, Any] = {}
        if pretrained is not None and pretrained.fixed_input_size:
            options |= {"img_size": size} | _patches(name, size, patch_size, small)
        elif patch_size is not None:
            raise ValueError(f"{name} has no patches; leave patch_size null")
        if num_heads is not None:
            options["num_heads"] = num_heads
        self.model, self.recipe = _create(name, norm, options, drop_path)
        try:
            if small and pretrained is not None and not pretrained.fixed_input_size:
                _shrink_stem(self.model, pretrained.first_conv)
            self._measure(field, size)
        except (RuntimeError, AttributeError, ZeroDivisionError, TypeError) as error:
            raise ValueError(f"{name} cannot read images of {size} pixels: {error}") from error

    def _measure(self, field: str, size: int) -> None:
        """Find the grids by encoding one blank image."""
        channels = self.spec[field].shape[0]
        if channels not in (1, 3):
            raise ValueError(f"timm encoders read 1 or 3 channels, and the images have {channels}")
        patch_embed = _patch_embed(self.model)
        self._size = size
        is_vit = isinstance(self.model, VisionTransformer) and patch_embed is not None
        self._one_size = is_vit and not self.model.dynamic_img_size
        self._mask: Tensor | None = None  # where to hide in the forward pass under way
        self._visible: Tensor | None = None  # (B, V) which patches to keep in it
        self._grid: tuple[int, int] | None = None  # of the mask; None means pixels
        if patch_embed is not None:
            patch_embed.register_forward_hook(self._hide)
            self.can_drop = isinstance(self.model, VisionTransformer)
        self._attentions: list[Any] = [m for m in self.model.modules() if hasattr(m, "fused_attn")]
        if self.can_drop:
            self.model.patch_drop.register_forward_hook(self._drop)
        was_training = self.model.training
        with torch.no_grad():
            features = self.model.eval().forward_features(torch.zeros(1, 3, size, size))
        self.model.train(was_training)
        self.channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
        self.prefix = getattr(self.model, "num_prefix_tokens", 0)
        rows = math.isqrt(self._tokens(features).shape[1])
        if rows**2 != self._tokens(features).shape[1]:
            raise ValueError(f"{self.model.__class__.__name__} makes no square grid of tokens at {size} pixels")
        self.dim = self.token_dim = self._tokens(features).shape[2]
        self.stride = math.ceil(size / rows)
        if patch_embed is not None:
            self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.zeros(self._embed_dim), std=0.02))
        else:
            self.filler = nn.Parameter(torch.zeros(3))

    def grid(self, view: View) -> tuple[int, ...]:
        return self._grid or tuple(view.x.shape[-2:])

    @property
    def patch_embedding(self) -> nn.Module | None:
        found: nn.Module | None = getattr(self.model, "patch_embed", None)
        return found

    def forward(self, view: View, mask: Tensor | None = None, visible_only: bool = False) -> Encoded:
        """Encode (B, C, H, W); with ``visible_only`` the tokens are those of the visible patches, in raster order."""
        x = view.x.expand(-1, 3, -1, -1) if view.x.shape[1] == 1 else view.x
        self._mask = None if visible_only else mask
        self._visible = visible_patches(mask, x.device) if visible_only and mask is not None else None
        self._choose_attention(x.device)
        self._choose_positions(x.shape[-1] == self._size)
        features = self.model.forward_features(x if self._grid else hide_pixels(x, mask, self.filler))
        self._mask = self._visible = None
        tokens = self._tokens(features)
        if visible_only:
            return Encoded(tokens, tokens.float().mean(1))
        rows = math.isqrt(tokens.shape[1])
        maps = tokens.transpose(1, 2).unflatten(2, (rows, rows))
        return Encoded(tokens, pool_cells(maps, mask, 1))

    def _choose_attention(self, device: torch.device) -> None:
        """Plain products and a softmax in half precision on a CPU: 1.5 to 6 times as fast as the fused kernel there."""
        slow = device.type == "cpu" and torch.is_autocast_enabled("cpu")
        for attention in self._attentions:
            attention.fused_attn = not slow and use_fused_attn()

    def _choose_positions(self, own_size: bool) -> None:
        """A ViT's own positions for images of its size, else interpolated ones; at its size nothing changes."""
        if self._one_size:
            patch_embed = self.model.patch_embed
            self.model.dynamic_img_size = not own_size
            patch_embed.strict_img_size = patch_embed.flatten = own_size
            patch_embed.output_fmt = Format.NCHW if own_size else Format.NHWC

    def _tokens(self, features: Tensor) -> Tensor:
        """(B, T, D) patch tokens from whatever layout the model has."""
        if features.dim() == 3:
            return features[:, self.prefix :]
        return features.flatten(1, 2) if self.channels_last else features.flatten(2).transpose(1, 2)

    def _hide(self, module: nn.Module, inputs: Any, patches: Tensor) -> Tensor | None:
        """After the patch embedding: note its grid, or swap masked patches (B, T, D) or (B, h, w, D)."""
        if self._grid is None:
            count = patches.flatten(1, -2).shape[1]
            self._grid = (math.isqrt(count), math.isqrt(count))
            self._embed_dim = patches.shape[-1]
        if self._mask is None:
            return None
        mask = self._mask.view(*patches.shape[:-1], 1)
        return torch.where(mask, self.mask_token.to(patches.dtype), patches)

    def _drop(self, module: nn.Module, inputs: Any, tokens: Tensor) -> Tensor | None:
        """After positions are added to (B, prefix + T, D): keep the prefix (class token, ...) and visible patches."""
        if self._visible is None:
            return None
        index = self._visible[..., None].expand(-1, -1, tokens.shape[2])
        return torch.cat([tokens[:, : self.prefix], tokens[:, self.prefix :].gather(1, index)], dim=1)


def visible_patches(mask: Tensor, device: torch.device) -> Tensor:
    """(B, V) int64 on ``device``: the raster positions that ``mask`` (B, *grid) leaves visible, as many in each sample.

    A mask on the host is counted there, so that the host need not wait for the device.
    """
    flat = mask.flatten(1)
    count = int((~flat[0]).sum())
    return to_device(flat, device).int().argsort(dim=1, stable=True)[:, :count]


def _patch_embed(model: nn.Module) -> PatchEmbed | None:
    """What cuts the image into patches; None where they overlap, as a hidden patch would show in its neighbours."""
    found = getattr(model, "patch_embed", None)
    return found if isinstance(found, PatchEmbed) else None


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, timm.list_models(), n=5)
    return f"Near: {', '.join(near)}." if near else "timm.list_models() names them all."


def _patches(name: str, size: int, patch_size: int | None, small: bool) -> dict[str, int]:
    """The patch_size option: the user's, or for a small image 4 pixels (Swin, which merges: 2) or what divides it."""
    if patch_size is None:
        if not small:
            return {}
        wish = 2 if name.startswith("swin") else 4
        patch_size = next(n for n in range(wish, size + 1) if size % n == 0)
    if patch_size < 1 or size % patch_size:
        fitting = ", ".join(str(n) for n in range(1, size // 2 + 1) if size % n == 0)
        raise ValueError(f"patch_size={patch_size} does not divide image_size={size}; use one of {fitting}")
    return {"patch_size": patch_size}


@dataclass(frozen=True)
class Recipe:
    """What makes a model of the same shape again: ``timm.create_model(name, num_classes=0, **options)``."""

    name: str
    options: Mapping[str, Any]

    def create(self, **more: Any) -> Any:
        """The model without a classifier, at its random initialisation."""
        return timm.create_model(self.name, pretrained=False, num_classes=0, **self.options, **more)


def _create(name: str, norm: str | None, options: dict[str, Any], drop_path: float) -> tuple[Any, Recipe]:
    rate = {"drop_path_rate": drop_path} if drop_path else {}
    recipe = Recipe(name, options)
    try:
        model = recipe.create(**rate)
        if norm == "layer" and batch_norms(model):
            recipe = Recipe(name, options | {"norm_layer": GroupNorm1})
            model = recipe.create(**rate)
    except (TypeError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ValueError(f"timm cannot build {name} with {given}: {error}") from error
    if norm == "layer" and batch_norms(model):
        raise ValueError(f"{name} has BatchNorm that timm cannot replace; leave norm null")
    if norm == "batch" and not batch_norms(model):
        raise ValueError(f"{name} has no BatchNorm; norm must be layer or null")
    return model, recipe


def _shrink_stem(model: Any, first_conv: Any) -> None:
    """Halve the first convolution's stride, with a 3x3 kernel unless it cuts patches, and drop the pooling."""
    old = model.get_submodule(first_conv) if isinstance(first_conv, str) else None
    if not isinstance(old, nn.Conv2d) or old.stride[0] < 2:
        raise ValueError("this model has no known small stem; set stem=standard")
    stride = old.stride[0] // 2
    kernel = stride if old.kernel_size == old.stride else 3
    padding = 0 if old.kernel_size == old.stride else 1
    new = nn.Conv2d(old.in_channels, old.out_channels, kernel, stride, padding, bias=old.bias is not None)
    parent, _, last = first_conv.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
    if isinstance(getattr(model, "maxpool", None), nn.Module):
        model.maxpool = nn.Identity()
