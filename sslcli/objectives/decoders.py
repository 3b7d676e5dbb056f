"""From the tokens of visible patches to one token a patch: the small transformer of a masked autoencoder."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

HEAD = 32  # width of an attention head (512 over 16 in MAE)


class TokenDecoder(nn.Module):
    """Puts visible tokens back in their places, mask tokens elsewhere, and lets all attend (MAE, section 3).

    Args:
        token_dim: width of the encoder's tokens.
        width: of the decoder's tokens, a multiple of 32.
        depth: number of blocks, at least 1: without attention a mask token would know nothing of the image.
        rows: of the grid of patches.
        cols: of the grid of patches.
    """

    positions: Tensor  # (rows * cols, width)

    def __init__(self, token_dim: int, width: int, depth: int, rows: int, cols: int) -> None:
        super().__init__()
        self.embed = nn.Linear(token_dim, width)
        self.mask_token = nn.Parameter(nn.init.normal_(torch.zeros(width), std=0.02))
        self.register_buffer("positions", sine_cosine(rows, cols, width), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, width // HEAD, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # as in MAE's published code
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, rows * cols, width) from the visible tokens (B, V, token_dim) in raster order, mask (B, rows, cols)."""
        return self.norm(self.blocks(self.placed(self.embed(tokens), mask.flatten(1)) + self.positions))

    def placed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T, width): at each visible place of the mask (B, T) its token of (B, V, width), elsewhere the mask token.

        A place's token is found by counting the visible places before it, so that nothing waits for the device.
        """
        order = ((~mask).cumsum(1) - 1).clamp(min=0)[..., None].expand(-1, -1, tokens.shape[2])
        return torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens.gather(1, order))


def sine_cosine(rows: int, cols: int, width: int) -> Tensor:
    """(rows * cols, width) fixed positions: half the width for the column, half for the row (MAE, appendix A.1).

    Each half is sin, then cos, of place / 10000^(i / (width / 4)) for i = 0 ... width / 4 - 1 (Vaswani et al. 2017).
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (col, row)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1).float()
