"""The mean of a text's embeddings: the smallest encoder of text, and what a transformer has to beat."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.config.ranges import Count, Share
from sslcli.encoders.text import TextEncoder, mean_of, visible
from sslcli.types import Encoded, Spec, View

_MULTIPLIER = 116_049_371  # a prime above the size of any table, so that the first id always changes the row


class TextBag(TextEncoder):
    """Average the embeddings of a text's tokens. Training takes seconds.

    The order of tokens means nothing without ``bigrams``. With them, the embedding of a token and its neighbour to the
    right is added to that of the token, so that "not good" is more than "not" and "good". Bigrams share the rows of one
    table by a hash of their two ids (Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification", section
    2.1). The rows begin at 0.

    Args:
        spec: the dataset's columns.
        hidden_dim: width of the embeddings.
        bigrams: rows of the table of bigrams; null has no such table.
        dropout: share of the numbers of each embedding that training drops.
        projection: width of a linear layer on the mean, and so of the pooled vector; null has no such layer.
        unit: whether the pooled vector is scaled to length 1. Cosine similarities are the same. A mean of few words is
            longer than one of many; scaled vectors do not tell probes how many words a text has.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        hidden_dim: Count = 256,
        bigrams: Count | None = None,
        dropout: Share = 0.0,
        projection: Count | None = None,
        unit: bool = True,
    ) -> None:
        super().__init__(spec)
        self.embed = nn.Embedding(self.num_ids, hidden_dim)
        nn.init.normal_(self.embed.weight, std=hidden_dim**-0.5)
        self.bigrams = None
        if bigrams is not None:
            self.bigrams = nn.Embedding.from_pretrained(torch.zeros(bigrams, hidden_dim), freeze=False)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Identity() if projection is None else nn.Linear(hidden_dim, projection)
        self.unit = unit
        self.token_dim = hidden_dim
        self.dim = projection or hidden_dim

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        hidden = self.hidden(view, mask)
        ids, seen = self.ids(view, hidden), visible(view, hidden)
        drops = self.training and self.dropout.p > 0
        # torch cannot trace embedding_bag for a batch of any size, and before 2.10 it has no gradient on a Mac's GPU.
        if drops or torch.compiler.is_exporting() or ids.device.type == "mps":
            tokens = self.dropout(self.tokens(ids, seen))
            return Encoded(tokens, self._pooled(mean_of(tokens, seen)), view.valid)
        return _Averaged(self, ids, seen, self._pooled(self._mean(ids, seen)), view.valid)

    def tokens(self, ids: Tensor, seen: Tensor | None) -> Tensor:
        """Return the embeddings (B, T, D) of tokens ids (B, T); those of bigrams need two tokens that are ``seen``."""
        tokens: Tensor = self.embed(ids)
        if self.bigrams is None:
            return tokens
        rows, there = self._rows(ids, seen)
        return tokens + self.bigrams(rows) * there[..., None]

    def _pooled(self, mean: Tensor) -> Tensor:
        pooled: Tensor = self.out(mean)
        return F.normalize(pooled, dim=1) if self.unit else pooled

    def _mean(self, ids: Tensor, seen: Tensor | None) -> Tensor:
        """Return the mean (B, D) of the seen tokens, without (B, T, D) numbers, which take most of a step's time."""
        weight = self.embed.weight
        share = ids.new_ones(ids.shape, dtype=weight.dtype) if seen is None else seen.to(weight.dtype)
        share = share / share.sum(1, keepdim=True).clamp(min=1)
        mean = F.embedding_bag(ids, weight, mode="sum", per_sample_weights=share)
        if self.bigrams is not None:
            rows, there = self._rows(ids, seen)
            mean = mean + F.embedding_bag(rows, self.bigrams.weight, mode="sum", per_sample_weights=share * there)
        return mean.float()

    def _rows(self, ids: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the row (B, T) of each token and its right neighbour, and where (B, T) both are seen."""
        assert self.bigrams is not None
        ids = ids.long()  # int32 would overflow
        rows = (ids * _MULTIPLIER + ids.roll(-1, 1)) % self.bigrams.num_embeddings
        there = torch.arange(ids.shape[1], device=ids.device) < ids.shape[1] - 1  # the neighbour of the last is no one
        return rows, there.expand_as(ids) if seen is None else there & seen & seen.roll(-1, 1)


class _Averaged(Encoded):
    """The mean of a text, computed at once. Tokens are looked up when they are first read, as few objectives do."""

    def __init__(self, bag: TextBag, ids: Tensor, seen: Tensor | None, pooled: Tensor, valid: Tensor | None) -> None:
        self._bag, self._ids, self._seen = bag, ids, seen
        self.pooled, self.valid = pooled, valid

    @functools.cached_property
    def tokens(self) -> Tensor:  # type: ignore[override]
        return self._bag.tokens(self._ids, self._seen)

    def chunks(self, parts: int) -> list[Encoded]:
        seen = [None] * parts if self._seen is None else self._seen.chunk(parts)
        valid = [None] * parts if self.valid is None else self.valid.chunk(parts)
        rows = zip(self._ids.chunk(parts), seen, self.pooled.chunk(parts), valid)
        return [_Averaged(self._bag, *row) for row in rows]
