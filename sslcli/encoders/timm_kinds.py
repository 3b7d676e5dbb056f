"""The three kinds of timm models, which hide in three ways what a mask names.

=================  =============================  =====================  ===========================================
kind               models                         a mask lies on         hidden is replaced by, or
=================  =============================  =====================  ===========================================
``ConvNet``        ResNet, ConvNeXt and others    the image's pixels     one value a channel, in the image
``PatchModel``     Swin, BEiT and others          the image's patches    a mask token, after the patch embedding
``ViT``            ViT, DeiT                      the image's patches    the same, or left out of the transformer
=================  =============================  =====================  ===========================================

A kind holds no tensors: the mask value is a parameter of the encoder, under the name ``mask_value_key``, which is
part of the format of checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import Format, PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sslcli.encoders.base import hide_pixels
from sslcli.randomness import to_device
from sslcli.types import View


class Kind:
    """What ``Timm`` needs to know of a kind of models."""

    mask_value_key: str  # the name of the mask value in the encoder's state dict
    can_drop: bool = False  # whether ``visible_features`` works

    def initial_mask_value(self) -> Tensor:
        """The mask value before training."""
        raise NotImplementedError

    def grid(self, view: View) -> tuple[int, ...]:
        """The shape of a mask for ``view``."""
        raise NotImplementedError

    def features(self, model: Any, x: Tensor, mask: Tensor | None, mask_value: Tensor) -> Tensor:
        """What ``model`` makes of images (B, 3, H, W), with ``mask`` (B, *grid) hidden; in the model's own layout."""
        raise NotImplementedError

    def visible_features(self, model: Any, x: Tensor, visible: Tensor) -> Tensor:
        """The same from the patches at the raster positions ``visible`` (B, V) only; the others are left out."""
        raise NotImplementedError


class ConvNet(Kind):
    """A model whose first layer sees overlapping pixels: what is hidden must be hidden in the image itself."""

    mask_value_key = "filler"

    def initial_mask_value(self) -> Tensor:
        return torch.zeros(3)

    def grid(self, view: View) -> tuple[int, ...]:
        return tuple(view.x.shape[-2:])

    def features(self, model: Any, x: Tensor, mask: Tensor | None, mask_value: Tensor) -> Tensor:
        return features_of(model, hide_pixels(x, mask, mask_value))


class PatchModel(Kind):
    """A model that first cuts the image into patches: a learned mask token takes the place of a hidden patch.

    It does so right after the patch embedding and before positions are added (SimMIM, section 3.1).

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
        with self.after_patch_embed.applying(lambda patches: swapped(patches, mask, mask_value)):
            return features_of(model, x)


class ViT(PatchModel):
    """A plain vision transformer, whose tokens keep their places to the end: hidden ones can be left out altogether.

    Leaving them out after positions are added is what makes MAE fast (He et al. 2021, section 3).

    A ViT reads images of any whole number of patches, with its positions interpolated bicubically (DINO,
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
        with self.after_positions.applying(lambda tokens: kept(tokens, visible, model.num_prefix_tokens)):
            return features_of(model, x)

    def _choose_positions(self, model: Any, x: Tensor) -> None:
        """Its own positions for images of its size, else interpolated ones.

        Interpolating to the same size would change nothing but the exported graph, which would hold it.
        """
        if not self.interpolates_always:
            own = x.shape[-1] == self.size
            model.dynamic_img_size = not own
            model.patch_embed.strict_img_size = model.patch_embed.flatten = own
            model.patch_embed.output_fmt = Format.NCHW if own else Format.NHWC


def kind_of(model: nn.Module, size: int) -> Kind:
    """The kind of ``model``, built for images of ``size`` pixels a side.

    Only timm's PatchEmbed cuts patches that do not overlap; elsewhere a hidden patch would show in its neighbours.
    """
    patch_embed = getattr(model, "patch_embed", None)
    if not isinstance(patch_embed, PatchEmbed):
        return ConvNet()
    return ViT(model, size) if isinstance(model, VisionTransformer) else PatchModel(patch_embed, size)


def features_of(model: Any, x: Tensor) -> Tensor:
    """What comes before the classifier: (B, prefix + T, D), (B, h, w, D) or (B, D, h, w) from images (B, 3, H, W)."""
    features: Tensor = model.forward_features(x)
    return features


class OutputHook:
    """Changes what ``module`` returns, but only while it is told how.

    The hook is registered for good, since torch.compile breaks its graph at one that comes and goes.
    """

    def __init__(self, module: nn.Module) -> None:
        self._change: Callable[[Tensor], Tensor] | None = None
        module.register_forward_hook(self._changed)

    @contextmanager
    def applying(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """In this context the module returns ``change(output)`` in place of its output."""
        self._change = change
        try:
            yield
        finally:
            self._change = None

    def _changed(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output if self._change is None else self._change(output)


def swapped(patches: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
    """Embedded patches, (B, T, D) or (B, h, w, D), with ``mask_token`` (D,) where ``mask`` (B, *grid) is True."""
    hidden = mask.view(*patches.shape[:-1], 1)
    return torch.where(hidden, mask_token.to(patches.dtype), patches)


def kept(tokens: Tensor, visible: Tensor, prefix: int) -> Tensor:
    """Of tokens (B, prefix + T, D) the prefix (class token, registers) and the patches at ``visible`` (B, V)."""
    index = visible[..., None].expand(-1, -1, tokens.shape[2])
    return torch.cat([tokens[:, :prefix], tokens[:, prefix:].gather(1, index)], dim=1)


def visible_patches(mask: Tensor, device: torch.device) -> Tensor:
    """(B, V) int64 on ``device``: the raster positions that ``mask`` (B, *grid) leaves visible, as many in each sample.

    A mask on the host is counted there, so that the host need not wait for the device.
    """
    flat = mask.flatten(1)
    count = int((~flat[0]).sum())
    return to_device(flat, device).int().argsort(dim=1, stable=True)[:, :count]
