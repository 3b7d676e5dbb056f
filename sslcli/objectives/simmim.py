"""Masked image modelling: SimMIM (Xie et al. 2021, arXiv:2111.09886), and MAE (He et al. 2021, arXiv:2111.06377)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.config.ranges import Count, Depth, Share
from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives.base import Objective, distinct
from sslcli.objectives.decoders import HEAD, TokenDecoder
from sslcli.objectives.masking import MASKS, cell_size, scaled_to
from sslcli.objectives.targets import target_function
from sslcli.randomness import Randomness
from sslcli.types import Encoded, Loss, Reconstruction, View

ERRORS: dict[str, Callable[[Tensor], Tensor]] = {"l1": torch.abs, "l2": torch.square}


class SimMIM(Objective):
    """Hide patches and predict their pixels by a linear layer on each token.

    The loss is the mean error on the hidden pixels. The target is the view with its crop and flips but without
    photometric jitter, normalised by the dataset's statistics. The masked view is a separate pass.

    With ``visible_only`` the encoder reads the visible patches only, and a small transformer with mask tokens precedes
    the linear layer. MAE is ``visible_only`` with ``mask=random mask_ratio=0.75 target=patch error=l2`` (its published
    decoder has 8 blocks, is 512 wide, and reads the class token too).

    An objective that contains this one may set ``reads`` to reconstruct other views, or call the steps of ``project``
    itself to use the masked encodings: ``draw``, ``encode``, ``errors``.

    Args:
        encoder: the encoder to train; it applies the mask in its own way.
        mask: ``block`` hides random cells of mask_patch pixels (SimMIM), ``random`` hides random single patches,
            counted as in MAE, ``blockwise`` hides rectangles of cells (BEiT).
        mask_ratio: share of hidden cells.
        mask_patch: side of a mask cell in pixels; null chooses by image and mask (cell_size).
        target: the pixels as they are, or normalised over each cell of the mask (MAE) or over a sliding window
            (SwinV2).
        target_window: side of that window in pixels; odd.
        error: ``l1`` (SimMIM) or ``l2`` (MAE), averaged over hidden pixels and channels.
        visible_only: leave the hidden patches out of the encoder; for an encoder that can (a ViT).
        decoder_dim: width of the decoder with ``visible_only``, a multiple of 32.
        decoder_depth: number of blocks of that decoder.
        reads: the numbers of the views that it reconstructs; null is the first.
    """

    needs_target = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask: Literal["block", "random", "blockwise"] = "block",
        mask_ratio: Share = 0.6,
        mask_patch: Count | None = None,
        target: Literal["none", "patch", "window"] = "none",
        target_window: Count = 47,
        error: Literal["l1", "l2"] = "l1",
        visible_only: bool = False,
        decoder_dim: Count = 256,
        decoder_depth: Depth = 1,
        reads: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.reads = distinct((0,) if reads is None else reads)
        images = {name: field for name, field in encoder.view_spec.items() if field.kind == "image"}
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
        self.cells = height // self.mask_patch  # cells of the mask along a side
        self._draw, count = MASKS[mask]
        self.num_hidden = count(mask_ratio, self.cells**2)
        if not 0 < self.num_hidden < self.cells**2:
            raise ValueError(
                f"mask_ratio={mask_ratio} hides {self.num_hidden} of {self.cells**2} patches of {self.mask_patch} "
                "pixels; change it or set a smaller mask_patch"
            )
        self.normalised = target_function(target, self.mask_patch, target_window)
        side = min(target_window, height - 1 + height % 2)
        names = {"patch": f"each {self.mask_patch} pixel patch", "window": f"the {side} pixel window around each pixel"}
        self.relative = names.get(target)
        self.error = error
        self.visible_only = visible_only
        self.token_decoder = _token_decoder(encoder, decoder_dim, decoder_depth, self.grid) if visible_only else None
        width = decoder_dim if visible_only else encoder.token_dim
        self.decoder = nn.Linear(width, self.channels * self.stride**2)

    def project(self, features: Features) -> dict[str, Tensor]:
        parts = []
        for i in self.reads:
            mask = self.draw(features.randomness, i)
            parts.append(self.errors(self.encode(features, i, mask), features.views[i], mask))
        return {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}

    def draw(self, randomness: Randomness, i: int) -> Tensor:
        """Return the mask (B, cells, cells) of view ``i``; every call in a step returns the same.

        With ``visible_only`` it stays on the host, where visible patches can be counted without device synchronisation.
        """
        source = replace(randomness, device=torch.device("cpu")) if self.visible_only else randomness
        mask = self._draw(source, f"mask{i}" if i else "mask", self.cells, self.cells, self.num_hidden)
        return mask.pin_memory() if self.visible_only and randomness.device.type == "cuda" else mask

    def hidden(self, view: View, randomness: Randomness, i: int) -> Tensor | None:
        return scaled_to(self.draw(randomness, i), *view.x.shape[-2:]) if i in self.reads else None

    def reconstruction(self, features: Features, i: int) -> Reconstruction | None:
        if i not in self.reads:
            return None
        mask = self.draw(features.randomness, i)
        return self.reconstruct(self.encode(features, i, mask), features.views[i], mask)

    def masked_pass(self, features: Features, i: int) -> Encoded:
        """Encode view ``i`` with its mask hidden; every call in a step returns the same."""
        return self.encode(features, i, self.draw(features.randomness, i))

    def encode(self, features: Features, i: int, mask: Tensor) -> Encoded:
        """Encode view ``i`` with ``mask`` (B, cells, cells) hidden."""
        return features.masked(i, scaled_to(mask, *self.grid), visible_only=self.visible_only)

    def errors(self, encoded: Encoded, view: View, mask: Tensor) -> dict[str, Tensor]:
        """Return each sample's summed ``error`` (B,) on its hidden pixels, and their ``count`` (B,).

        And ``blank`` (B,), the error of predicting the mean colour everywhere, which gives the chance level.
        """
        made = self.reconstruct(encoded, view, mask)
        error, count = masked_error(made.prediction, made.target, made.hidden, self.error)
        blank, _ = masked_error(torch.zeros_like(made.target), made.target, made.hidden, self.error)
        return {"error": error, "count": count, "blank": blank}

    def reconstruct(self, encoded: Encoded, view: View, mask: Tensor) -> Reconstruction:
        """Predict the pixels of ``view`` from its encoding with ``mask`` (B, cells, cells) hidden."""
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
        """Map tokens (B, T, D) to pixels (B, C, H, W): a linear layer, then pixel shuffle, cropped to the image."""
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
        raise ValueError(f"decoder_depth={depth} must be at least 1: mask tokens read the image by attention")
    if width < HEAD or width % HEAD:
        raise ValueError(f"decoder_dim={width} must be a multiple of {HEAD}")
    return TokenDecoder(encoder.token_dim, width, depth, *grid)


def masked_error(prediction: Tensor, target: Tensor, hidden: Tensor, error: str) -> tuple[Tensor, Tensor]:
    """Return, per sample, the absolute or squared error summed over hidden pixels, and the number of these pixels.

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W).
        hidden: (B, H, W) bool.
        error: ``l1`` or ``l2``.

    Returns:
        error (B,) and count (B,), float32. Their ratio over the batch, divided by C, is SimMIM's published loss; with
        l2 it is MAE's, as the mean over hidden patches of the mean over a patch's values is the same number.
    """
    if hidden.shape != (len(prediction), *prediction.shape[2:]):
        raise ValueError(f"hidden must be (B, H, W), and is {tuple(hidden.shape)} for {tuple(prediction.shape)}")
    each = ERRORS[error](prediction.float() - target.float()).sum(1)
    return (each * hidden).flatten(1).sum(1), hidden.flatten(1).sum(1, dtype=torch.float32)
