"""A transformer for text: BERT (Devlin et al. 2018, arXiv:1810.04805), its parameters named as in Hugging Face's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sslcli.config.ranges import Count, Depth, Share
from sslcli.encoders.text import TextEncoder, by_length, drawn_normal, mean_of, readable, visible
from sslcli.types import Encoded, Spec, View

_EPS = 1e-12  # of BERT's norms


class TextTransformer(TextEncoder):
    """BERT's encoder: embeddings of tokens and places, then blocks of attention and a layer of 4 x the width.

    Names and shapes of all parameters are those of ``transformers.BertModel`` without its pooler, so that the weights
    of either load into the other. Attention is ``scaled_dot_product_attention``, which padding takes no part in.

    Args:
        spec: the dataset's columns; their longest text gives the number of places.
        hidden_dim: width of the tokens.
        depth: number of blocks.
        num_heads: heads of attention; divides hidden_dim.
        dropout: share of numbers that training drops after embeddings and layers, and of the attention's weights.
        pool: ``mean`` of all tokens that are no padding, or ``cls``, the first token. Training and evaluation pool in
            the same way.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        hidden_dim: Count = 128,
        depth: Depth = 2,
        num_heads: Count = 2,
        dropout: Share = 0.1,
        pool: Literal["mean", "cls"] = "mean",
    ) -> None:
        super().__init__(spec)
        if hidden_dim % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide hidden_dim={hidden_dim}")
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        self.embeddings = _Embeddings(self.num_ids, self.max_length, hidden_dim, dropout)
        self.encoder = Blocks(hidden_dim, depth, num_heads, dropout, of_weights=dropout)
        self.apply(drawn_normal)
        self.num_heads, self.dropout, self.pool = num_heads, dropout, pool
        self.dim = self.token_dim = hidden_dim

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of embeddings, which an objective that predicts ids uses as its output layer."""
        return self.embeddings.word_embeddings

    def recompute_blocks(self) -> None:
        self.encoder.recompute = True

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        self.check_length(view.x.shape[1])
        hidden = self.hidden(view, mask)
        tokens = by_length(self._tokens, self.ids(view, hidden), view.valid)
        pooled = tokens[:, 0].float() if self.pool == "cls" else mean_of(tokens, visible(view, hidden))
        return Encoded(tokens, pooled, view.valid)

    def _tokens(self, ids: Tensor, valid: Tensor | None) -> Tensor:
        read = None if valid is None else readable(valid)[:, None, None]  # (B, 1, 1, T)
        tokens: Tensor = self.encoder(self.embeddings(ids), read)
        return tokens


class _Embeddings(nn.Module):
    """The sum of the embeddings of a token, of its place and of the first of BERT's two kinds of sentences."""

    def __init__(self, num_ids: int, max_length: int, width: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(num_ids, width)
        self.position_embeddings = nn.Embedding(max_length, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, _EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        place = self.position_embeddings.weight[: ids.shape[1]] + self.token_type_embeddings.weight[0]
        out: Tensor = self.dropout(self.LayerNorm(self.word_embeddings(ids) + place))
        return out


class Blocks(nn.Module):
    """Blocks of attention one after the other; with ``causal`` a token reads itself and those before it only.

    ``of_weights`` is the share of the attention's weights that training drops.
    """

    def __init__(
        self, width: int, depth: int, num_heads: int, dropout: float, *, of_weights: float, causal: bool = False
    ) -> None:
        super().__init__()
        blocks = (_Block(width, _Heads(width, num_heads, of_weights, causal), dropout) for _ in range(depth))
        self.layer = nn.ModuleList(blocks)
        self.recompute = False  # keep no activations inside blocks

    def forward(self, x: Tensor, read: Tensor | None) -> Tensor:
        for block in self.layer:
            run: Callable[..., Tensor] = block
            if self.recompute and self.training and torch.is_grad_enabled():
                run = partial(checkpoint, block, use_reentrant=False)
            x = run(x, read)
        return x


class _Block(nn.Module):
    """Attention, then two linear layers, each with the norm behind its residual."""

    def __init__(self, width: int, heads: _Heads, dropout: float) -> None:
        super().__init__()
        self.attention = _Attention(width, heads, dropout)
        self.intermediate = _Dense(width, 4 * width)
        self.output = _Residual(4 * width, width, dropout)

    def forward(self, x: Tensor, read: Tensor | None) -> Tensor:
        x = self.attention(x, read)
        out: Tensor = self.output(F.gelu(self.intermediate.dense(x)), x)
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: _Heads, dropout: float) -> None:
        super().__init__()
        self.add_module("self", heads)
        self.output = _Residual(width, width, dropout)

    def forward(self, x: Tensor, read: Tensor | None) -> Tensor:
        out: Tensor = self.output(self.get_submodule("self")(x, read), x)
        return out


class _Heads(nn.Module):
    def __init__(self, width: int, num_heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.num_heads, self.dropout, self.causal = num_heads, dropout, causal

    def forward(self, x: Tensor, read: Tensor | None) -> Tensor:
        query, key, value = (
            layer(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(query, key, value, read, dropout, self.causal)
        return heads.transpose(1, 2).flatten(2)


class _Dense(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, out)


class _Residual(nn.Module):
    """A linear layer and dropout, added to the input of the layers before it, and a norm."""

    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, out)
        self.LayerNorm = nn.LayerNorm(out, _EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return out
