"""What a page can show of a model, as plain tensors on the CPU; who makes them needs to know nothing of pages."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Masked:
    """Held-out pictures that a masked objective completes; every tensor (B, C, H, W) in [0, 1]."""

    pictures: dict[str, Tensor]  # by the column's name
    relative: str | None  # see Reconstruction
    error: float  # mean absolute error on hidden pixels, in the numbers that the loss compares
    blank: float  # the same of predicting the mean everywhere
    count: int  # pictures that both were read from


@dataclass
class Neighbours:
    """Held-out queries, each with the training samples whose features are the most cosine-similar."""

    queries: Tensor  # (Q, C, H, W) in [0, 1]
    nearest: Tensor  # (Q, K, C, H, W) in [0, 1]
    similarity: Tensor  # (Q, K) cosine
    same: Tensor | None  # (Q, K) bool, whether the label is the query's; None without labels
    bank: int  # training samples that were searched


@dataclass
class Embedding:
    """Features of samples that training did not see, where there are such, beside those of random weights."""

    trained: Tensor  # (N, D)
    untrained: Tensor  # (N, D)
    labels: Tensor | None  # (N,)
    thumbnails: Tensor | None  # (N, C, h, w) in [0, 1], h and w at most 32; only if they were asked for
    held_out: bool

    @property
    def logged(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Features, labels and thumbnails, as loggers take them."""
        return self.trained, self.labels, self.thumbnails


@dataclass
class Visuals:
    """Everything that there is to show of one model; what its data have no pictures for is empty."""

    views: dict[str, Tensor]  # by the column's name, (B, C, H, W) in [0, 1]
    masked: Masked | None
    neighbours: Neighbours | None
    embedding: Embedding

    @property
    def reconstructions(self) -> dict[str, Tensor]:
        """Pictures of masked samples by the column's name; none without a masked objective."""
        return self.masked.pictures if self.masked else {}
