"""The content of a report as plain tensors on the CPU, independent of how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sslcli.data.classes import class_name


@dataclass
class Masked:
    """Reconstructions of held-out pictures by a masked objective; every tensor is (B, C, H, W) in [0, 1]."""

    pictures: dict[str, Tensor]  # by the column's name
    relative: str | None  # see Reconstruction
    error: float  # mean absolute error on hidden pixels, in the units of the target
    blank: float  # the same for predicting the mean everywhere
    count: int  # number of pictures on which both were measured


@dataclass
class Nearest:
    """Held-out queries, each with the training samples of the largest cosine similarity of features, by position."""

    queries: Tensor  # (Q,)
    rows: Tensor  # (Q, K)
    similarity: Tensor  # (Q, K) cosine
    same: Tensor | None  # (Q, K) bool, whether the label is the query's; None without labels
    bank: int  # number of training samples that were searched


@dataclass
class Neighbours:
    """The pictures of queries and of their nearest samples."""

    queries: Tensor  # (Q, C, H, W) in [0, 1]
    nearest: Tensor  # (Q, K, C, H, W) in [0, 1]
    found: Nearest


@dataclass
class TextNeighbours:
    """The texts, or histories of users, of queries and of their nearest samples."""

    queries: list[str]
    nearest: list[list[str]]
    found: Nearest
    kind: str = "texts"


@dataclass
class Guess:
    """A token of a text, and, if it is hidden, the most probable token there by the words around it."""

    token: str
    guess: str | None
    probability: float


@dataclass
class Patches:
    """Pictures with their tokens' largest three principal components as colours, of trained and of random weights."""

    pictures: dict[str, Tensor]  # by the column's name, (B, C, H, W) in [0, 1]; maps of tokens are (B, 3, h, w)
    shares: dict[str, float]  # by the column's name: the components' share of the variance


@dataclass
class Embedding:
    """Features of held-out samples, or training samples if nothing is held out, by trained and by random weights."""

    trained: Tensor  # (N, D)
    untrained: Tensor  # (N, D)
    labels: Tensor | None  # (N,)
    classes: tuple[str, ...]  # the names of the labels; () where they are not known
    thumbnails: Tensor | None  # (N, C, h, w) in [0, 1], h and w at most 32; only if requested
    held_out: bool

    @property
    def logged(self) -> tuple[Tensor, list[str] | None, Tensor | None]:
        """Features, names of classes and thumbnails, the arguments of ``Logger.embedding``."""
        return self.trained, self.names, self.thumbnails

    @property
    def names(self) -> list[str] | None:
        """The name of each sample's class."""
        return None if self.labels is None else [class_name(self.classes, label) for label in self.labels.tolist()]


@dataclass
class Visuals:
    """The content of the report of one model; without pictures in the data, some parts are empty."""

    views: dict[str, Tensor]  # by the column's name, (B, C, H, W) in [0, 1]
    masked: Masked | None
    neighbours: Neighbours | None
    patches: Patches | None
    embedding: Embedding
    text_neighbours: TextNeighbours | None = None
    guesses: list[list[Guess]] | None = None  # texts of a masked objective, token by token

    @property
    def reconstructions(self) -> dict[str, Tensor]:
        """Pictures of masked samples by the column's name; {} without a masked objective."""
        return self.masked.pictures if self.masked else {}
