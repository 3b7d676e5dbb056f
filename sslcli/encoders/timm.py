"""Any image model of timm as an encoder: ResNet, ConvNeXt, ViT, Swin and others.

``timm_model`` builds the model for the image size, ``timm_kinds`` applies masks, and this module converts the features
to tokens and one pooled vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from timm.layers import set_reentrant_ckpt, use_fused_attn
from torch import Tensor, nn

from sslcli.config.ranges import Count, Share, Side
from sslcli.encoders.base import Encoder
from sslcli.encoders.images import pool_cells, resized
from sslcli.encoders.timm_kinds import features_of, kind_of, visible_patches
from sslcli.encoders.timm_model import RGB, check_name, make_model, shrink_stem
from sslcli.types import Encoded, Spec, View

SMALL = 64  # images up to this many pixels a side get a small stem


class Timm(Encoder):
    """A timm model without its classifier. Grey images are repeated to three channels.

    Args:
        spec: the dataset's columns.
        name: the name of the model in timm.
        field: the image column to read.
        image_size: pixels a side; null takes the dataset's.
        patch_size: pixels a side of a patch, for models with patches; null chooses one for the image size.
        num_heads: attention heads of every block of a ViT; null takes the model's own.
        embed_dim: width of a ViT's tokens; null takes the model's own.
        depth: number of a ViT's blocks; null takes the model's own.
        stem: ``small`` reduces the resolution of small images less (in a ResNet a 3x3 convolution of stride 1 without
            pooling, in other models half the stride or a smaller patch); ``auto`` is ``small`` up to 64 pixels.
        norm: ``batch`` or ``layer`` (a CNN's BatchNorm becomes GroupNorm with one group); null takes the
            model's own. A transformer accepts only ``layer``.
        drop_path: rate of stochastic depth.
        pool: the pooled vector is the mean of the ``patches``, or the class ``token``.

    Raises:
        ValueError: timm has no such model, or cannot build it with these options for images of this size.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        name: str,
        field: str = "image",
        image_size: Side | None = None,
        patch_size: Count | None = None,
        num_heads: Count | None = None,
        embed_dim: Count | None = None,
        depth: Count | None = None,
        stem: Literal["auto", "standard", "small"] = "auto",
        norm: Literal["batch", "layer"] | None = None,
        drop_path: Share = 0.0,
        pool: Literal["patches", "token"] = "patches",
    ) -> None:
        super().__init__()
        check_name(name)
        self.field = field
        self.spec = resized(spec, field, image_size)
        channels, size, _ = self.spec[field].shape
        channels = RGB if channels == 1 else channels
        small = stem == "small" or (stem == "auto" and size <= SMALL)
        shape = {"num_heads": num_heads, "embed_dim": embed_dim, "depth": depth}
        self.model, self.blueprint = make_model(name, size, channels, patch_size, shape, small, norm, drop_path)
        self.prefix: int = getattr(self.model, "num_prefix_tokens", 0)  # class token and registers, before the patches
        if pool == "token" and getattr(self.model, "cls_token", None) is None:
            raise ValueError(f"pool=token: {name} has no class token; use pool=patches")
        self.pools_token = pool == "token"
        self.channels_last: bool = getattr(self.model, "output_fmt", "NCHW") == "NHWC"  # layout of a feature map
        self.attentions = [module for module in self.model.modules() if hasattr(module, "fused_attn")]
        try:
            if small:
                shrink_stem(self.model, name)
            tokens = self._tokens_of_a_blank_image(channels, size)
        except (RuntimeError, AssertionError, AttributeError, ZeroDivisionError, TypeError) as error:
            raise ValueError(
                f"{name} cannot read images of {size} pixels: {str(error) or type(error).__name__}"
            ) from error
        rows = math.isqrt(tokens.shape[1])
        if rows**2 != tokens.shape[1]:
            raise ValueError(f"{self.model.__class__.__name__} makes no square grid of tokens at {size} pixels")
        self.dim = self.token_dim = tokens.shape[2]
        self.stride = math.ceil(size / rows)
        self.kind = kind_of(self.model, size, channels)
        self.can_drop = self.kind.can_drop
        self.register_parameter(self.kind.mask_value_key, nn.Parameter(self.kind.initial_mask_value()))

    def grid(self, view: View) -> tuple[int, ...]:
        return self.kind.grid(view)

    @property
    def patch_embedding(self) -> nn.Module | None:
        found: nn.Module | None = getattr(self.model, "patch_embed", None)
        return found

    def recompute_blocks(self) -> None:
        set_reentrant_ckpt(False)  # a reentrant one accumulates gradients in a backward pass of its own
        try:
            self.model.set_grad_checkpointing()
        except (AssertionError, AttributeError):
            raise ValueError(f"{type(self.model).__name__} has no blocks that can be computed again") from None

    def forward(self, view: View, mask: Tensor | None = None, visible_only: bool = False) -> Encoded:
        """Encode (B, C, H, W); with ``visible_only`` the tokens are the visible patches only, in raster order."""
        self.expect(view, self.field)
        x = view.x.expand(-1, RGB, -1, -1) if view.x.shape[1] == 1 else view.x
        choose_attention(self.attentions, x.device)
        dropped = mask if visible_only else None
        if dropped is not None:
            features = self.kind.visible_features(self.model, x, visible_patches(dropped, x.device))
        else:
            features = self.kind.features(self.model, x, mask, getattr(self, self.kind.mask_value_key))
        tokens = self._tokens(features)
        if self.pools_token:
            return Encoded(tokens, features[:, 0].float())
        if dropped is not None:
            return Encoded(tokens, tokens.float().mean(1))
        rows = math.isqrt(tokens.shape[1])
        maps = tokens.transpose(1, 2).unflatten(2, (rows, rows))
        return Encoded(tokens, pool_cells(maps, mask, 1))

    def _tokens(self, features: Tensor) -> Tensor:
        """Convert features (B, prefix + T, D), (B, h, w, D) or (B, D, h, w) to patch tokens (B, T, D)."""
        if features.dim() == 3:
            return features[:, self.prefix :]
        return features.flatten(1, 2) if self.channels_last else features.flatten(2).transpose(1, 2)

    @torch.no_grad()
    def _tokens_of_a_blank_image(self, channels: int, size: int) -> Tensor:
        """Encode a blank image to find the number and the width of the tokens (1, T, D), which timm does not report."""
        features = features_of(self.model.eval(), torch.zeros(1, channels, size, size))
        self.model.train()
        return self._tokens(features)


def choose_attention(attentions: Iterable[Any], device: torch.device) -> None:
    """Use unfused attention in half precision on a CPU, where it is 1.5 to 6 times as fast as the fused kernel."""
    slow = device.type == "cpu" and torch.is_autocast_enabled("cpu")
    for attention in attentions:
        attention.fused_attn = not slow and use_fused_attn()
