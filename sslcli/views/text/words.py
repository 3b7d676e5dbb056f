"""Random views of texts that leave out or hide some of their words."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcli.config.ranges import Share
from sslcli.randomness import Randomness
from sslcli.types import Spec
from sslcli.views.text.base import TextViews, compacted, span


class TokenCrop(TextViews):
    """Keep a random part of each text, of consecutive words (DeCLUTR, Giorgi et al. 2020, arXiv:2006.03659).

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads.
        field: the column; null is the dataset's first column of tokens.
        scale: the smallest and the largest share of a text's words that a view keeps; at least one word is kept.
    """

    shortens = True

    def __init__(
        self, view_spec: Spec, spec: Spec, num_views: int, *, field: str | None = None, scale: list[float]
    ) -> None:
        super().__init__(view_spec, spec, num_views, field=field)
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale={scale} must be two shares, the smaller first, above 0 and at most 1")
        self.least, self.most = scale

    def draw(self, ids: Tensor, words: Tensor, randomness: Randomness) -> Tensor:
        share, place = randomness.uniform("crop", 2, 1).unbind(1)
        share = self.least + share * (self.most - self.least)
        kept = span(words, share, place, words.sum(1, keepdim=True), least=1)
        special = ~words & (ids != self.pad)
        return compacted(ids, kept | special, self.pad)


class TokenDelete(TextViews):
    """Leave out each word at random (EDA, Wei and Zou 2019, arXiv:1901.11196); one of them always stays.

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads.
        field: the column; null is the dataset's first column of tokens.
        rate: share of words that are left out.
    """

    shortens = True

    def __init__(
        self, view_spec: Spec, spec: Spec, num_views: int, *, field: str | None = None, rate: Share = 0.2
    ) -> None:
        super().__init__(view_spec, spec, num_views, field=field)
        self.rate = rate

    def draw(self, ids: Tensor, words: Tensor, randomness: Randomness) -> Tensor:
        return thinned(ids, words, self.rate, self.pad, randomness)


def thinned(ids: Tensor, words: Tensor, rate: float, pad: int, randomness: Randomness) -> Tensor:
    """Leave out a random share of the ``words`` (B, T) of the texts ``ids`` (B, T); one of them always stays."""
    drawn = torch.where(words, randomness.uniform("delete", ids.shape[1]), -1.0)
    left_out = words & (drawn < rate) & (drawn < drawn.amax(1, keepdim=True))
    return compacted(ids, ~left_out & (ids != pad), pad)


class SpanMask(TextViews):
    """Hide consecutive words of each text, at a random place (span cut-off, Shen et al. 2020, arXiv:2009.13818).

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads.
        field: the column; null is the dataset's first column of tokens.
        ratio: share of a text's words that a view hides; one word always stays.

    Raises:
        ValueError: the column has no id that hides a token.
    """

    def __init__(
        self, view_spec: Spec, spec: Spec, num_views: int, *, field: str | None = None, ratio: Share = 0.3
    ) -> None:
        super().__init__(view_spec, spec, num_views, field=field)
        if self.column.mask is None:
            raise ValueError(f"the column '{self.field}' has no id that hides a token (Field.mask)")
        self.ratio = ratio

    def draw(self, ids: Tensor, words: Tensor, randomness: Randomness) -> Tensor:
        place = randomness.uniform("span", 1)
        most = (words.sum(1, keepdim=True) - 1).clamp(min=0)
        hidden = span(words, torch.full_like(place, self.ratio), place, most, least=0)
        return ids.masked_fill(hidden, self.column.mask or 0)
