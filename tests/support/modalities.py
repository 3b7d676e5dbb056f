"""Tiny components of other modalities: tokens with dropout views, user-item towers; the training loop is the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.data.base import Columns
from sslcli.encoders.base import Encoder
from sslcli.types import Encoded, Field, Spec, View


def token_dataset(num_samples: int = 128, length: int = 12, vocab: int = 50) -> Columns:
    """Token ids of four topics; each topic has its own quarter of the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_samples) % 4
    ids = torch.randint(0, vocab // 4, (num_samples, length), generator=generator) + labels[:, None] * (vocab // 4)
    return Columns(Spec(text=Field("tokens", (length,), torch.int64, vocab)), {"text": ids}, labels)


def user_item_dataset(num_pairs: int = 128, users: int = 40, items: int = 30) -> Columns:
    """Pairs of ids: user u likes items near u."""
    generator = torch.Generator().manual_seed(0)
    user = torch.randint(0, users, (num_pairs,), generator=generator)
    item = (user * items // users + torch.randint(0, 3, (num_pairs,), generator=generator)) % items
    spec = Spec(user=Field("id", (), torch.int64, users), item=Field("id", (), torch.int64, items))
    return Columns(spec, {"user": user, "item": item})


def vector_dataset(num_samples: int = 128, width: int = 10) -> Columns:
    vectors = torch.randn(num_samples, width, generator=torch.Generator().manual_seed(0)) * 3 + 1
    field = Field("vector", (width,), torch.float32, mean=(1.0,) * width, std=(3.0,) * width)
    return Columns(Spec(vector=field), {"vector": vectors})


class Bag(Encoder):
    """Mean of token embeddings after dropout (SimCSE's views: the same ids twice)."""

    def __init__(self, spec: Spec, *, field: str = "text", dim: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        self.spec = spec
        self.embed = nn.Embedding(spec[field].vocab, dim)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(dim, dim)
        self.dim, self.token_dim, self.stride = dim, dim, 1

    def grid(self, view: View) -> tuple[int, ...]:
        return tuple(view.x.shape[1:])

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        tokens = self.dropout(self.embed(view.x))
        return Encoded(tokens, self.out(tokens.mean(1)))


class Towers(Encoder):
    """One embedding table per column."""

    def __init__(self, spec: Spec, *, dim: int = 16) -> None:
        super().__init__()
        self.spec = spec
        self.towers = nn.ModuleDict({name: nn.Embedding(field.vocab, dim) for name, field in spec.items()})
        self.dim, self.token_dim, self.stride = dim, dim, 1

    def grid(self, view: View) -> tuple[int, ...]:
        return (1,)

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        pooled = self.towers[view.field](view.x)
        return Encoded(pooled[:, None], pooled)
