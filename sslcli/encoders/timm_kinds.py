"""The three kinds of timm models, and how each of them hides the masked part of an image.

=================  =============================  =====================  ===========================================
kind               models                         mask has an entry for  a hidden entry is
=================  =============================  =====================  ===========================================
``ConvNet``        ResNet, ConvNeXt and others    each pixel             replaced by a learned value a channel
``PatchModel``     Swin, BEiT and others          each patch             replaced by a mask token after embedding
``ViT``            ViT, DeiT                      each patch             replaced in the same way, or dropped
=================  =============================  =====================  ===========================================

A ``Kind`` has no parameters: the mask value is a parameter of the encoder with the name ``mask_value_key``, which is
its key in checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import Format, PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sslcli.encoders.images import hide_pixels
from sslcli.randomness import to_device
from sslcli.types import View


class Kind:
    """The interface by which ``Timm`` runs models of one kind."""

    mask_value_key: str  # the name of the mask value in the encoder's state dict
    can_drop: bool = False  # whether ``visible_features`` works

    def initial_mask_value(self) -> Tensor:
        """Return the initial mask value."""
        raise NotImplementedError

    def grid(self, view: View) -> tuple[int, ...]:
        """Return the shape of a mask for ``view``."""
        raise NotImplementedError

    def features(self, model: Any, x: Tensor, mask: Tensor | None, mask_value: Tensor) -> Tensor:
        """Compute the features of images (B, C, H, W) masked by ``mask`` (B, *grid), in the layout of ``model``."""
        raise NotImplementedError

    def visible_features(self, model: Any, x: Tensor, visible: Tensor) -> Tensor:
        """Compute features of the patches at the raster positions ``visible`` (B, V) only; the others are dropped."""
        raise NotImplementedError


class ConvNet(Kind):
    """A model whose first layer reads overlapping windows, so that pixels must be masked in the image itself."""

    mask_value_key = "filler"

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def initial_mask_value(self) -> Tensor:
        return torch.zeros(self.channels)

    def grid(self, view: View) -> tuple[int, ...]:
        return tuple(view.x.shape[-2:])

    def features(self, model: Any, x: Tensor, mask: Tensor | None, mask_value: Tensor) -> Tensor:
        return features_of(model, hide_pixels(x, mask, mask_value))


class PatchModel(Kind):
    """A model that first embeds patches: a learned mask token replaces each hidden patch.

    The token is inserted after the patch embedding and before position embeddings are added (SimMIM, section 3.1).

    Args:
        patch_embed: the model's patch embedding.
        size: pixels a side of the images that the model was built for.
    """

    mask_value_key = "mask_token"

    def __init__(self, patch_embed: PatchEmbed, size: int) -> None:
        rows, columns = patch_embed.dynamic_feat_size((size, size))
        self.patches = rows, columns
        self.width = patch_embed.proj.out_channels  # of an embedded patch
        self.after_patch_embed = OutputHook(patch_embed)

    def initial_mask_value(self) -> Tensor:
        return nn.init.trunc_normal_(torch.zeros(self.width), std=0.02)

    def grid(self, view: View) -> tuple[int, ...]:
        return self.patches

    def features(self, model: Any, x: Tensor, mask: Tensor | None, mask_value: Tensor) -> Tensor:
        if mask is None:
            return features_of(model, x)
        with self.after_patch_embed.applying(lambda patches: with_mask_token(patches, mask, mask_value)):
            return features_of(model, x)


class ViT(PatchModel):
    """A plain vision transformer, which can also drop hidden tokens, because no layer merges or moves tokens.

    Tokens are dropped after position embeddings are added, as in MAE (He et al. 2021, section 3), which saves time.

    The image may have any whole number of patches; position embeddings are interpolated bicubically (DINO,
    arXiv:2104.14294).
    """

    can_drop = True

    def __init__(self, model: VisionTransformer, size: int) -> None:
        super().__init__(model.patch_embed, size)
        self.size = size
        self.interpolates_always = model.dynamic_img_size
        self.after_positions = OutputHook(model.patch_drop)

    def features(self, model: Any, x: Tensor, mask: Tensor | None, mask_value: Tensor) -> Tensor:
        self._choose_positions(model, x)
        return super().features(model, x, mask, mask_value)

    def visible_features(self, model: Any, x: Tensor, visible: Tensor) -> Tensor:
        self._choose_positions(model, x)
        with self.after_positions.applying(lambda tokens: keep_visible(tokens, visible, model.num_prefix_tokens)):
            return features_of(model, x)

    def _choose_positions(self, model: Any, x: Tensor) -> None:
        """Use the model's own position embeddings for images of its size, else interpolated ones.

        Interpolating to the same size would not change the features, but it would be part of an exported graph.
        """
        if not self.interpolates_always:
            own = x.shape[-1] == self.size
            model.dynamic_img_size = not own
            model.patch_embed.strict_img_size = model.patch_embed.flatten = own
            model.patch_embed.output_fmt = Format.NCHW if own else Format.NHWC


def kind_of(model: nn.Module, size: int, channels: int) -> Kind:
    """Return the kind of ``model``, which was built for images of ``channels`` channels and ``size`` pixels a side.

    Only timm's PatchEmbed makes patches that do not overlap; in other models a masked patch would still be visible in
    the tokens of its neighbours.
    """
    patch_embed = getattr(model, "patch_embed", None)
    if not isinstance(patch_embed, PatchEmbed):
        return ConvNet(channels)
    return ViT(model, size) if isinstance(model, VisionTransformer) else PatchModel(patch_embed, size)


def features_of(model: Any, x: Tensor) -> Tensor:
    """Compute features before the classifier: (B, prefix + T, D), (B, h, w, D) or (B, D, h, w) from (B, C, H, W)."""
    features: Tensor = model.forward_features(x)
    return features


class OutputHook:
    """Changes the output of ``module`` inside the context ``applying`` only.

    The hook stays registered, because adding and removing hooks would make torch.compile break its graph.
    """

    def __init__(self, module: nn.Module) -> None:
        self._change: Callable[[Tensor], Tensor] | None = None
        module.register_forward_hook(self._changed)

    @contextmanager
    def applying(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Inside this context the module returns ``change(output)`` instead of its output."""
        self._change = change
        try:
            yield
        finally:
            self._change = None

    def _changed(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output if self._change is None else self._change(output)


def with_mask_token(patches: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
    """Replace embedded patches (B, T, D) or (B, h, w, D) by ``mask_token`` (D,) where ``mask`` (B, *grid) is True."""
    hidden = mask.view(*patches.shape[:-1], 1)
    return torch.where(hidden, mask_token.to(patches.dtype), patches)


def keep_visible(tokens: Tensor, visible: Tensor, prefix: int) -> Tensor:
    """Keep class token and registers (the prefix) and the patches ``visible`` (B, V) of tokens (B, prefix + T, D)."""
    index = visible[..., None].expand(-1, -1, tokens.shape[2])
    return torch.cat([tokens[:, :prefix], tokens[:, prefix:].gather(1, index)], dim=1)


def visible_patches(mask: Tensor, device: torch.device) -> Tensor:
    """Return the raster positions (B, V) int64, on ``device``, where ``mask`` (B, *grid) is False.

    Every sample must have the same number V of them. If the mask is on the host, V is counted there, so that the host
    does not wait for the device.
    """
    flat = mask.flatten(1)
    count = int((~flat[0]).sum())
    return to_device(flat, device).int().argsort(dim=1, stable=True)[:, :count]
