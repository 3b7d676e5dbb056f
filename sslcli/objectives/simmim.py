"""Masked image modelling: SimMIM (Xie et al. 2021, arXiv:2111.09886), and MAE (He et al. 2021, arXiv:2111.06377)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives.base import Objective
from sslcli.objectives.decoders import HEAD, TokenDecoder
from sslcli.objectives.masking import MASKS, cell_size, scaled_to
from sslcli.objectives.targets import target_function
from sslcli.randomness import Randomness
from sslcli.types import Encoded, Loss, Reconstruction, View

ERRORS: dict[str, Callable[[Tensor], Tensor]] = {"l1": torch.abs, "l2": torch.square}


class SimMIM(Objective):
    """Hide patches, predict their pixels with one linear layer a token, mean error on the hidden pixels.

    The target is the view's geometry without photometric jitter, normalised by the dataset's statistics.
    The masked view is one pass of its own. With ``visible_only`` the encoder reads the visible patches only,
    and a small transformer that sees mask tokens stands before the linear layer. MAE is ``visible_only``
    with ``mask=random mask_ratio=0.75 target=patch error=l2`` (and a decoder of 8 blocks, 512 wide, that
    reads the class token too).

    An objective that holds this one sets ``num_views`` to 2 to reconstruct both views, or takes the steps of
    ``project`` by itself to use the masked encodings: ``draw``, ``encode``, ``errors``.

    Args:
        encoder: what is trained; it hides what the mask says in its own way.
        mask: ``block`` hides random cells of mask_patch pixels (SimMIM), ``random`` the same but of single
            patches and counted as in MAE, ``blockwise`` rectangles of cells (BEiT).
        mask_ratio: share of hidden cells.
        mask_patch: pixels a side of a cell of the mask; null fits the image and the mask (cell_size).
        target: the pixels as they are, or normalised over each cell of the mask (MAE) or over a sliding window
            (SwinV2).
        target_window: pixels a side of that window; odd.
        error: ``l1`` (SimMIM) or ``l2`` (MAE), averaged over hidden pixels and channels.
        visible_only: leave the hidden patches out of the encoder; for an encoder that can (a ViT).
        decoder_dim: width of the transformer that then decodes, a multiple of 32.
        decoder_depth: its number of blocks.
    """

    num_views = 1
    needs_target = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask: Literal["block", "random", "blockwise"] = "block",
        mask_ratio: float = 0.6,
        mask_patch: int | None = None,
        target: Literal["none", "patch", "window"] = "none",
        target_window: int = 47,
        error: Literal["l1", "l2"] = "l1",
        visible_only: bool = False,
        decoder_dim: int = 256,
        decoder_depth: int = 1,
    ) -> None:
        super().__init__()
        images = {name: field for name, field in encoder.view_spec.items() if len(field.shape) == 3}
        if not encoder.token_dim or not images:
            raise ValueError("simmim predicts pixels from tokens; this encoder has no image tokens to hide")
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio={mask_ratio} must be between 0 and 1")
        if target_window < 3 or target_window % 2 == 0:
            raise ValueError(f"target_window={target_window} must be odd and at least 3")
        name, field = next(iter(images.items()))
        self.channels, height, _ = field.shape
        self.grid = encoder.grid(View(torch.empty(0, *field.shape), name))
        self.stride = encoder.stride
        self.mask_patch = cell_size(mask_patch, mask, height, height // self.grid[0], self.stride)
        if target == "patch" and self.channels * self.mask_patch**2 < 2:
            raise ValueError("target=patch needs more than one value a patch; set mask_patch=2 or more")
        self.cells = height // self.mask_patch  # of the mask, a side
        self._draw, count = MASKS[mask]
        self.num_hidden = count(mask_ratio, self.cells**2)
        if not 0 < self.num_hidden < self.cells**2:
            raise ValueError(
                f"mask_ratio={mask_ratio} hides {self.num_hidden} of {self.cells**2} patches of {self.mask_patch} "
                "pixels; change it or set a smaller mask_patch"
            )
        self.normalised = target_function(target, self.mask_patch, target_window)
        side = min(target_window, height - 1 + height % 2)
        words = {"patch": f"each {self.mask_patch} pixel patch", "window": f"the {side} pixel window around each pixel"}
        self.relative = words.get(target)
        self.error = error
        self.visible_only = visible_only
        self.token_decoder = _token_decoder(encoder, decoder_dim, decoder_depth, self.grid) if visible_only else None
        width = decoder_dim if visible_only else encoder.token_dim
        self.decoder = nn.Linear(width, self.channels * self.stride**2)

    def project(self, features: Features) -> dict[str, Tensor]:
        parts = []
        for i in range(self.num_views):
            mask = self.draw(features.randomness, i)
            parts.append(self.errors(self.encode(features, i, mask), features.views[i], mask))
        return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}

    def draw(self, randomness: Randomness, i: int) -> Tensor:
        """The mask (B, cells, cells) of view ``i``, the same whenever it is asked for.

        With ``visible_only`` it stays on the host, where the encoder can count without waiting for the device.
        """
        where = replace(randomness, device=torch.device("cpu")) if self.visible_only else randomness
        mask = self._draw(where, f"mask{i}" if i else "mask", self.cells, self.cells, self.num_hidden)
        return mask.pin_memory() if self.visible_only and randomness.device.type == "cuda" else mask

    def hidden(self, view: View, randomness: Randomness, i: int) -> Tensor | None:
        return scaled_to(self.draw(randomness, i), *view.x.shape[-2:]) if i < self.num_views else None

    def reconstruction(self, features: Features, i: int) -> Reconstruction | None:
        if i >= self.num_views:
            return None
        mask = self.draw(features.randomness, i)
        return self.reconstruct(self.encode(features, i, mask), features.views[i], mask)

    def encode(self, features: Features, i: int, mask: Tensor) -> Encoded:
        """The encoding of view ``i`` with ``mask`` (B, cells, cells) hidden."""
        return features.masked(i, scaled_to(mask, *self.grid), visible_only=self.visible_only)

    def errors(self, encoded: Encoded, view: View, mask: Tensor) -> dict[str, Tensor]:
        """Each sample's summed ``error`` (B,) on its hidden pixels, and their ``count`` (B,).

        And ``blank`` (B,), the error of predicting the mean colour everywhere: what knowing nothing gives.
        """
        made = self.reconstruct(encoded, view, mask)
        error, count = masked_error(made.prediction, made.target, made.hidden, self.error)
        blank, _ = masked_error(torch.zeros_like(made.target), made.target, made.hidden, self.error)
        return {"error": error, "count": count, "blank": blank}

    def reconstruct(self, encoded: Encoded, view: View, mask: Tensor) -> Reconstruction:
        """The pixels of ``view`` as predicted from its encoding with ``mask`` (B, cells, cells) hidden."""
        if view.target is None:
            raise ValueError("simmim needs views with a target; choose an image pipeline for `views`")
        height, width = view.target.shape[-2:]
        mask = mask.to(view.target.device, non_blocking=True)
        tokens = encoded.tokens
        if self.token_decoder is not None:
            tokens = self.token_decoder(tokens, scaled_to(mask, *self.grid))
        pixels = self._pixels(tokens, height, width)
        return Reconstruction(
            pixels.float(), self.normalised(view.target), scaled_to(mask, height, width), self.relative
        )

    def _pixels(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """(B, C, H, W) from tokens (B, T, D): linear, then pixels out of channels; the overhang is cut off."""
        rows, cols = math.ceil(height / self.stride), math.ceil(width / self.stride)
        maps = self.decoder(tokens).transpose(1, 2).unflatten(2, (rows, cols))
        return F.pixel_shuffle(maps, self.stride)[..., :height, :width]

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        scalars = (outputs["count"].sum() + 1e-5) * self.channels
        total = outputs["error"].sum() / scalars
        return Loss(total, {f"masked_{self.error}": total.detach()}, chance=outputs["blank"].sum() / scalars)


def _token_decoder(encoder: Encoder, width: int, depth: int, grid: tuple[int, ...]) -> TokenDecoder:
    if not encoder.can_drop:
        raise ValueError("visible_only needs an encoder that can leave tokens out, a ViT; leave it false")
    if depth < 1:
        raise ValueError(f"decoder_depth={depth} must be at least 1: mask tokens learn of the image by attention")
    if width < HEAD or width % HEAD:
        raise ValueError(f"decoder_dim={width} must be a multiple of {HEAD}")
    return TokenDecoder(encoder.token_dim, width, depth, *grid)


def masked_error(prediction: Tensor, target: Tensor, hidden: Tensor, error: str) -> tuple[Tensor, Tensor]:
    """Per sample, the summed absolute or squared error over the hidden pixels and their count (channels count once).

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W).
        hidden: (B, H, W) bool.
        error: ``l1`` or ``l2``.

    Returns:
        error (B,) and count (B,), float32: their ratio over the batch, divided by C, is SimMIM's published loss,
        and with l2 MAE's, whose mean over hidden patches of means over a patch's values is the same number.
    """
    if hidden.shape != (len(prediction), *prediction.shape[2:]):
        raise ValueError(f"hidden must be (B, H, W), and is {tuple(hidden.shape)} for {tuple(prediction.shape)}")
    each = ERRORS[error](prediction.float() - target.float()).sum(1)
    return (each * hidden).flatten(1).sum(1), hidden.flatten(1).sum(1, dtype=torch.float32)
