"""What views of texts share: the column of token ids, and random views of it that are drawn on the device at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sslcli.errors import UserError
from sslcli.randomness import Randomness
from sslcli.types import Spec, View
from sslcli.views.base import Views, valid_tokens


class TextViews(Views):
    """Random views of one column of token ids. A subclass overrides ``draw`` or ``draw_all``.

    Padding and special ids are never changed. What is drawn for a word depends on its place in the text only, so that
    more padding, or another split into micro-batches, draws the same.

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads.
        field: the column; null is the dataset's first column of tokens.

    Raises:
        ValueError: there is no such column of tokens, or views are shorter than texts and it has no padding.
    """

    shortens = False  # whether ``draw`` leaves words out

    def __init__(self, view_spec: Spec, spec: Spec, num_views: int, *, field: str | None = None) -> None:
        super().__init__()
        texts = [name for name, column in spec.items() if column.kind == "tokens"]
        if field is not None and spec[field].kind != "tokens":
            raise ValueError(f"field={field} is a column of kind {spec[field].kind}, and these views are of tokens")
        if not texts:
            raise ValueError(f"these views are of token ids, and the dataset has none: {', '.join(spec)}")
        self.field = field or texts[0]
        self.column = spec[self.field]
        self.pad = -1 if self.column.pad is None else self.column.pad
        if self.shortens and self.column.pad is None:
            raise ValueError(
                f"views are shorter than texts, and '{self.field}' has no id that fills them up (Field.pad)"
            )
        self.num_views = max(num_views, 1)

    def draw(self, ids: Tensor, words: Tensor, randomness: Randomness) -> Tensor:
        """Return a random view (B, T) of the ids (B, T), of which ``words`` (B, T) marks those that stand for words."""
        raise NotImplementedError

    def draw_all(self, ids: Tensor, words: Tensor, randomness: Randomness) -> list[Tensor]:
        """Return all views; a subclass whose views depend on each other overrides this instead of ``draw``."""
        return [self.draw(ids, words, randomness.named(str(number))) for number in range(self.num_views)]

    @torch.no_grad()
    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        ids = columns[self.field].long()
        words = self.column.words(ids)
        drawn = self.draw_all(ids, words, randomness)
        if ids.device.type == "cpu":  # where looking at the numbers waits for nothing; views share a width
            width = max(self.column.width_of(view) for view in drawn)
            drawn = [view[:, :width] for view in drawn]
        return [self._view(view) for view in drawn]

    def evaluation_view(self, columns: Mapping[str, Tensor], field: str | None = None) -> View:
        if field not in (None, self.field):
            raise UserError(f"views.field: views are made of the column '{self.field}' only, not of '{field}'.")
        return self._view(columns[self.field].long())

    def _view(self, ids: Tensor) -> View:
        return View(ids, self.field, valid_tokens(ids, self.column))


def span(words: Tensor, share: Tensor, place: Tensor, most: Tensor, least: int) -> Tensor:
    """Return (B, T) bool, True at consecutive words of each text.

    Args:
        words: (B, T) bool, which tokens are words.
        share: (B, 1), the length of the span as a share of the text's words; it is rounded.
        place: (B, 1) in [0, 1), where the span starts, among all places where it fits.
        most: (B, 1), the largest length in words.
        least: the smallest length, where ``most`` is not smaller.
    """
    number = words.cumsum(1) - 1  # of each word in its text
    count = words.sum(1, keepdim=True)
    length = (share * count).round().long().clamp(min=least).minimum(most)
    start = (place * (count - length + 1)).long()
    return words & (number >= start) & (number < start + length)


def compacted(ids: Tensor, keep: Tensor, pad: int) -> Tensor:
    """Return the ids (B, T) that ``keep`` (B, T) marks, in their order, followed by ``pad``."""
    order = (~keep).to(torch.int8).argsort(dim=1, stable=True)
    left = torch.arange(ids.shape[1], device=ids.device) < keep.sum(1, keepdim=True)
    return torch.where(left, ids.gather(1, order), pad)
