"""The decoder of a masked autoencoder: a small transformer from the visible tokens to one token per patch."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

HEAD = 32  # width of an attention head (512 over 16 in MAE)


class TokenDecoder(nn.Module):
    """A transformer on the visible tokens at their positions and mask tokens at all other positions (MAE, section 3).

    Args:
        token_dim: width of the encoder's tokens.
        width: width of the decoder's tokens, a multiple of 32.
        depth: number of blocks, at least 1: without attention a mask token would not depend on the image.
        rows: rows of the grid of patches.
        cols: columns of the grid of patches.
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
        """Decode visible tokens (B, V, token_dim) in raster order, mask (B, rows, cols), to (B, rows * cols, width)."""
        return self.norm(self.blocks(self.placed(self.embed(tokens), mask.flatten(1)) + self.positions))

    def placed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return (B, T, width): tokens (B, V, width) where the mask (B, T) is visible, mask tokens elsewhere.

        The token of a position is found by counting the visible positions before it, without device synchronisation.
        """
        order = ((~mask).cumsum(1) - 1).clamp(min=0)[..., None].expand(-1, -1, tokens.shape[2])
        return torch.where(mask[..., None], self.mask_token.to(tokens.dtype), tokens.gather(1, order))


def sine_cosine(rows: int, cols: int, width: int) -> Tensor:
    """Return fixed position embeddings (rows * cols, width): one half for the column, one for the row (MAE, A.1).

    Each half is sin, then cos, of index / 10000^(i / (width / 4)) for i = 0 ... width / 4 - 1 (Vaswani et al. 2017).
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    angles = [index.flatten()[:, None] * frequencies for index in (col, row)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1).float()
