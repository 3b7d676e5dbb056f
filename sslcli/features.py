"""What an objective sees of a batch: encodings of its views, computed when first asked for and kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.randomness import Randomness
from sslcli.types import Encoded, View


class Features:
    """The encodings of one micro-batch.

    Args:
        encode: the encoder, possibly compiled: ``encode(view, mask)``.
        views: the views of the micro-batch.
        randomness: its random numbers, for masks and noise.
    """

    def __init__(
        self, encode: Callable[[View, Tensor | None], Encoded], views: list[View], randomness: Randomness
    ) -> None:
        self._encode = encode
        self.views = views
        self.randomness = randomness
        self._clean: dict[int, Encoded] = {}

    def clean(self, *which: int) -> list[Encoded]:
        """The unmasked encodings of these views. Those asked for together go through as one batch.

        With BatchNorm the grouping matters, so an objective asks for what belongs together in one call.
        """
        groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for i in which:
            if i not in self._clean:
                groups.setdefault((self.views[i].field, tuple(self.views[i].x.shape[1:])), []).append(i)
        for members in groups.values():
            joined = self._encode(_join([self.views[i] for i in members]), None)
            self._clean.update(zip(members, _split(joined, len(members))))
        return [self._clean[i] for i in which]

    def masked(self, i: int, mask: Tensor) -> Encoded:
        """The encoding of view ``i`` with ``mask`` (B, *grid) hidden: a pass of its own, as the input differs."""
        return self._encode(self.views[i], mask)


def _join(views: list[View]) -> View:
    if len(views) == 1:
        return views[0]
    valid = [v.valid for v in views if v.valid is not None]
    return View(torch.cat([v.x for v in views]), views[0].field, torch.cat(valid) if len(valid) == len(views) else None)


def _split(encoded: Encoded, parts: int) -> list[Encoded]:
    valid = encoded.valid.chunk(parts) if encoded.valid is not None else [None] * parts
    return [Encoded(*fields) for fields in zip(encoded.tokens.chunk(parts), encoded.pooled.chunk(parts), valid)]
