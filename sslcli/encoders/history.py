"""A transformer over a user's history of items: SASRec (Kang and McAuley 2018, arXiv:1808.09781) and BERT4Rec's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.config.ranges import Count, Depth, Share
from sslcli.encoders.base import Encoder
from sslcli.encoders.text import drawn_normal, readable
from sslcli.encoders.text_transformer import Blocks
from sslcli.errors import UserError
from sslcli.graph import Graph
from sslcli.types import Encoded, Spec, View

COLUMN = "history"


class History(Encoder):
    """Reads the column ``history``, a user's items from the oldest to the newest, and nothing else of the user.

    So it knows users that training never saw, by what they have. The input is the sum of the embeddings of an item and
    of its place, counted from the oldest, then a norm and dropout. Blocks are BERT's, with the norm behind the
    residual, as in RecBole's SASRec. Padding comes after the items and changes nothing.

    ``pooled`` is what the next item is predicted from: its dot product with a row of ``item_vectors`` is an item's
    score. With ``causal`` it is the state at the last item. Without, it is the state at a mask that is appended to the
    history, as BERT4Rec predicts (Sun et al. 2019, arXiv:1904.06690, section 3.6), unless something is hidden already,
    as in training. With ``causal`` an empty history is the vector 0, which scores all items alike.

    Args:
        spec: the dataset's columns and its graph of users and items.
        hidden_dim: width of the states, and of the items' vectors.
        depth: number of blocks.
        num_heads: heads of attention; divides hidden_dim.
        dropout: share of numbers that training drops after embeddings and layers. Of the attention's weights none are
            dropped: that took half of a step on a CPU.
        causal: whether an item reads itself and those before it only.

    Raises:
        ValueError: the dataset has no histories.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        hidden_dim: Count = 64,
        depth: Depth = 2,
        num_heads: Count = 2,
        dropout: Share = 0.2,
        causal: bool = True,
    ) -> None:
        super().__init__()
        if COLUMN not in spec:
            raise ValueError(
                f"it reads the column '{COLUMN}', and the dataset has {', '.join(spec)}; set dataset.sample=history"
            )
        if hidden_dim % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide hidden_dim={hidden_dim}")
        if depth < 1:
            raise ValueError(f"depth={depth} must be at least 1")
        graph = Graph.of(spec)
        self.spec, self.column, self.causal = spec, spec[COLUMN], causal
        self.first_id, self.num_items = graph.num_users, graph.num_items  # items are the nodes after the users
        self.length = self.column.shape[0]
        self.items = nn.Embedding(self.num_items + 2, hidden_dim)  # the last rows are the padding and the mask
        self.places = nn.Embedding(self.length + (not causal), hidden_dim)
        self.norm, self.dropout = nn.LayerNorm(hidden_dim, 1e-12), nn.Dropout(dropout)
        self.blocks = Blocks(hidden_dim, depth, num_heads, dropout, of_weights=0.0, causal=causal)
        self.apply(drawn_normal)
        self.dim = self.token_dim = hidden_dim
        self.stride = 1

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of items, then padding and mask; its row 0 stands for the id ``first_id``."""
        return self.items

    def item_vectors(self) -> Tensor:
        """Return the vector (I, dim) of each item, which losses compare with the states."""
        return self.items.weight[: self.num_items]

    def recompute_blocks(self) -> None:
        self.blocks.recompute = True

    def grid(self, view: View) -> tuple[int, ...]:
        return tuple(view.x.shape[1:])

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        self.expect(view, COLUMN)
        width = view.x.shape[1]
        if width > self.length:
            raise UserError(
                f"dataset: a history has {width} items, and this encoder reads {self.length}. "
                f"Set dataset.length={self.length}."
            )
        rows = view.x - self.first_id
        valid = rows != self.num_items
        if mask is not None:
            rows = rows.masked_fill(mask & self.column.words(view.x), self.num_items + 1)
        count = valid.sum(1, keepdim=True)
        last, shown = (count - 1).clamp(min=0), count > 0
        read = valid
        if not self.causal and mask is None:
            rows, read = F.pad(rows, (0, 1), value=self.num_items), F.pad(valid, (0, 1))
            rows, read = rows.scatter(1, count, self.num_items + 1), read.scatter(1, count, True)
            last, shown = count, torch.ones_like(shown)
        x = self.dropout(self.norm(self.items(rows) + self.places.weight[: rows.shape[1]]))
        tokens = self.blocks(x, None if self.causal else readable(read)[:, None, None])
        pooled = tokens.gather(1, last[:, :, None].expand(-1, -1, self.dim))[:, 0].float()
        return Encoded(tokens[:, :width], torch.where(shown, pooled, 0.0), valid)
