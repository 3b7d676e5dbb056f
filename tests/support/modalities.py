"""Tiny components of other modalities: tokens with dropout views, user-item towers; the training loop is the same."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.data.base import Columns
from sslcli.encoders.base import Encoder
from sslcli.graph import FEATURES, Graph, Lists, Rankings
from sslcli.objectives.infomax import normal
from sslcli.types import Encoded, Field, Spec, View
from sslcli.views.base import Views


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


USER_WIDTH, ITEM_WIDTH = 4, 6  # of the features of pairs_dataset


def pairs_dataset(*, users: int = 12, items: int = 9, features: bool = False) -> Columns:
    """Pairs of a user's and an item's node: two blocks of taste, and one held-out item of each user's own block.

    Users of even and of odd numbers like items of even and of odd numbers. User 0 is left with one training item, the
    last item is of no training pair, and each third user likes an item of the other block, too. Features are drawn.
    """
    liked = [[i for i in range(items - 1) if i % 2 == u % 2] for u in range(users)]
    held = torch.tensor([of[u // 2 % len(of)] for u, of in enumerate(liked)])
    pairs = [(u, i) for u, of in enumerate(liked) for i in of if i != held[u] and (u or i == liked[0][-1])]
    pairs += [(u, (u + 1) % 2) for u in range(1, users, 3)]
    user, item = torch.tensor(pairs).T
    field = Field("id", (), torch.int64, users + items)
    facts = dict(Graph.facts(users, items, user, item))
    if features:
        generator = torch.Generator().manual_seed(0)
        facts[FEATURES["user"]] = torch.randn(users, USER_WIDTH, generator=generator)
        facts[FEATURES["item"]] = torch.randn(items, ITEM_WIDTH, generator=generator)
    spec = Spec(user=field, item=field, facts=facts)
    dataset = Columns(spec, {"user": user, "item": item + users})
    everyone, seen = torch.arange(users), Lists.of(user, item, users)
    dataset.held_out = Columns(spec, {"user": everyone, "item": held + users})
    unknown = torch.zeros(users, dtype=torch.int64)
    relevant = Lists.of(everyone, held, users)
    dataset.held_out.rankings = Rankings(everyone, everyone, relevant, seen, seen, unknown, "one item of each user")
    return dataset


def histories(users: int = 96, items: int = 30, length: int = 12) -> Columns:
    """Histories of 0 to ``length + 3`` items, cut to the last ``length``; the item that follows each is held out.

    Users of even numbers step through all items one by one, those of odd numbers two by two, so that the last two items
    say which is next. Each user begins with another item.
    """
    generator = torch.Generator().manual_seed(0)
    user = torch.arange(users)
    count = torch.randint(0, length + 4, (users, 1), generator=generator)
    count[:3, 0] = torch.tensor([0, 1, length + 3])
    place = torch.arange(length + 4)
    item = (5 * user[:, None] + (1 + user[:, None] % 2) * place) % items  # (users, length + 4), also what comes later
    known = place < count
    first = (count - length).clamp(min=0)  # of those that a history has room for
    kept = first + torch.arange(length)
    pad, nodes = users + items, item + users
    history = torch.where(kept < count, nodes.gather(1, kept.clamp(max=length + 3)), pad)
    spec = Spec(
        user=Field("id", (), torch.int64, users + items),
        history=Field("tokens", (length,), torch.int64, users + items + 2, pad=pad, mask=pad + 1),
        facts=Graph.facts(users, items, user[:, None].expand_as(item)[known], item[known]),
    )
    columns = {"user": user, "history": history}
    dataset = Columns(spec, columns)
    dataset.held_out = Columns(spec, columns)
    following = Lists.of(user, item.gather(1, count)[:, 0], users)
    seen = Lists.of(*torch.unique(torch.stack([user[:, None].expand_as(item)[known], item[known]]), dim=1), users)
    unknown = torch.zeros(users, dtype=torch.int64)
    dataset.held_out.rankings = Rankings(user, user, following, seen, seen, unknown, "the last item of each user")
    return dataset


def vector_dataset(num_samples: int = 128, width: int = 10) -> Columns:
    vectors = torch.randn(num_samples, width, generator=torch.Generator().manual_seed(0)) * 3 + 1
    field = Field("vector", (width,), torch.float32, mean=(1.0,) * width, std=(3.0,) * width)
    return Columns(Spec(vector=field), {"vector": vectors})


def image_text_dataset(num_samples: int = 128, *, texts: torch.Tensor | None = None) -> Columns:
    """Float images in [-2, 2] of eight patterns, and for each a text of 2 to 5 tokens of its pattern, then padding."""
    generator = torch.Generator().manual_seed(0)
    pattern = torch.arange(num_samples) % 8
    patterns = torch.rand(8, 1, 8, 8, generator=generator) * 4 - 2
    image = (patterns[pattern] + 0.3 * torch.randn(num_samples, 1, 8, 8, generator=generator)).clamp(-2, 2)
    ids = 1 + 4 * pattern[:, None] + torch.randint(0, 4, (num_samples, 5), generator=generator)
    length = torch.randint(2, 6, (num_samples, 1), generator=generator)
    text = torch.where(torch.arange(5) < length, ids, 0)
    spec = Spec(
        image=Field("image", (1, 8, 8), torch.float32, mean=(0.0,), std=(1.2,)),
        text=Field("tokens", (5,), torch.int64, 33, pad=0),
    )
    return Columns(spec, {"image": image, "text": text}, pattern)


class ImageText(Encoder):
    """A linear map of an image's pixels and the mean of a text's embeddings, without its padding."""

    def __init__(self, spec: Spec, *, dim: int = 16) -> None:
        super().__init__()
        self.spec = spec
        width = math.prod(spec["image"].shape)
        pixels = nn.Sequential(nn.Flatten(1), nn.Linear(width, dim), nn.Unflatten(1, (1, dim)))
        self.towers = nn.ModuleDict({"image": pixels, "text": nn.Embedding(spec["text"].vocab, dim)})
        self.dim, self.token_dim, self.stride = dim, dim, 1

    def grid(self, view: View) -> tuple[int, ...]:
        return (1,)

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        tokens = self.towers[view.field](view.x)
        return Encoded(tokens, mean_of(tokens, view.valid), view.valid)


def mean_of(tokens: Tensor, valid: Tensor | None) -> Tensor:
    """The mean of tokens (B, T, D) that are no padding."""
    if valid is None:
        return tokens.mean(1)
    return (tokens * valid[:, :, None]).sum(1) / valid.sum(1, keepdim=True)


class Bag(Encoder):
    """Mean of token embeddings after dropout (SimCSE's views: the same ids twice), without padding."""

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
        return Encoded(tokens, self.out(mean_of(tokens, view.valid)))


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


PAD, BEGIN, END, MASK = range(4)  # of padded_texts
FIRST_WORD = 4


def padded_texts(
    num_samples: int = 128, length: int = 24, vocab: int = 60, *, pair: bool = False, shortest: int = 0, room: int = 0
) -> Columns:
    """Texts of four topics between a begin and an end, of ``shortest`` to as many words as fit, then padding.

    After ``length`` tokens there is ``room`` for as many more, which is padding in all texts.

    Two words of three are of the topic's own part of the vocabulary. ``pair`` adds a second, shorter text of it.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_samples) % 4

    def column(width: int) -> torch.Tensor:
        own = (vocab - FIRST_WORD) // 4
        of_topic = torch.randint(0, own, (num_samples, width), generator=generator) + labels[:, None] * own
        of_any = torch.randint(0, 4 * own, (num_samples, width), generator=generator)
        ids = FIRST_WORD + torch.where(torch.rand(num_samples, width, generator=generator) < 2 / 3, of_topic, of_any)
        words = torch.randint(shortest, width - 1, (num_samples, 1), generator=generator)
        place = torch.arange(width)
        ids = torch.where(place > words, torch.where(place == words + 1, END, PAD), ids)
        return nn.functional.pad(torch.where(place == 0, BEGIN, ids), (0, room), value=PAD)

    def field(width: int) -> Field:
        return Field("tokens", (width + room,), torch.int64, vocab, pad=PAD, mask=MASK, special=(BEGIN, END))

    columns, spec = {"text": column(length)}, Spec(text=field(length))
    if pair:
        columns, spec = {**columns, "pair": column(length // 2)}, spec.having("pair", field(length // 2))
    return Columns(spec, columns, labels)


class Noisy(Views):
    """Two views of a vector, each with noise of its own."""

    field = "vector"

    def __init__(self, sigma):
        super().__init__()
        self.sigma = sigma

    def forward(self, columns, randomness):
        x = columns["vector"]
        return [View(x + self.sigma * normal(randomness, f"noise {k}", x.shape[1]), "vector") for k in (0, 1)]

    def evaluation_view(self, columns):
        return View(columns["vector"], "vector")
