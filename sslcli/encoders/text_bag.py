"""The mean of a text's embeddings: the smallest encoder of text, and what a transformer has to beat."""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.config.ranges import Count, Share
from sslcli.encoders.text import TextEncoder, mean_of, visible
from sslcli.types import Encoded, Spec, View


class TextBag(TextEncoder):
    """Average the embeddings of a text's tokens, whatever their order. Training takes seconds.

    Args:
        spec: the dataset's columns.
        hidden_dim: width of the embeddings.
        dropout: share of the numbers of each embedding that training drops.
        projection: width of a linear layer on the mean, and so of the pooled vector; null has no such layer.
    """

    def __init__(
        self, spec: Spec, *, hidden_dim: Count = 256, dropout: Share = 0.0, projection: Count | None = None
    ) -> None:
        super().__init__(spec)
        self.embed = nn.Embedding(self.num_ids, hidden_dim)
        nn.init.normal_(self.embed.weight, std=hidden_dim**-0.5)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Identity() if projection is None else nn.Linear(hidden_dim, projection)
        self.token_dim = hidden_dim
        self.dim = projection or hidden_dim

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        hidden = self.hidden(view, mask)
        tokens = self.dropout(self.embed(self.ids(view, hidden)))
        return Encoded(tokens, self.out(mean_of(tokens, visible(view, hidden))), view.valid)
