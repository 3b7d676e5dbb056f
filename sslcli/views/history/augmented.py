"""Whole histories, and random changes of them that keep a user's taste: CL4SRec (Xie et al. 2020, arXiv:2010.14395)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.config.ranges import Natural, Share
from sslcli.randomness import Randomness
from sslcli.types import Spec
from sslcli.views.text.base import TextViews, compacted, span

Operation = Callable[[Tensor, Tensor, Randomness], Tensor]


class Augmented(TextViews):
    """The first views are whole histories; of each pair of views after them both are changed, in different ways.

    Two different ones of three operations are drawn for each sample and pair (CL4SRec, sections 3.2 and 3.3):

    - crop: keep a part of consecutive items, of a share of the history's length;
    - mask: hide a share of the items;
    - reorder: shuffle a part of consecutive items, of a share of the history's length.

    Numbers of items are rounded down, as published; a crop keeps one item at least.

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads.
        whole: how many of the first views are whole histories.
        crop: the share that a crop keeps (eta); null leaves the operation out.
        mask: the share that is hidden (gamma); null leaves the operation out.
        reorder: the share that is shuffled (beta); null leaves the operation out.

    Raises:
        ValueError: the dataset has no histories, or there are views to be changed and no operation.
    """

    shortens = True

    def __init__(
        self,
        view_spec: Spec,
        spec: Spec,
        num_views: int,
        *,
        whole: Natural = 1,
        crop: Share | None = 0.6,
        mask: Share | None = 0.3,
        reorder: Share | None = 0.6,
    ) -> None:
        if "history" not in spec:
            raise ValueError(f"the dataset has no column 'history', only {', '.join(spec)}; set dataset.sample=history")
        super().__init__(view_spec, spec, num_views, field="history")
        if self.column.mask is None and mask is not None:
            raise ValueError("the column 'history' has no id that hides an item (Field.mask); set mask=null")
        self.whole, self.crop, self.mask, self.reorder = min(whole, self.num_views), crop, mask, reorder
        shares = {self._cropped: crop, self._masked: mask, self._reordered: reorder}
        self.operations: list[Operation] = [change for change, share in shares.items() if share is not None]
        if not self.operations and self.num_views > self.whole:
            raise ValueError(f"crop, mask and reorder are null, and view {self.whole} is to be a changed history")
        self.by_dropout = self.num_views > 1 and self.num_views == self.whole

    def draw_all(self, ids: Tensor, words: Tensor, randomness: Randomness) -> list[Tensor]:
        """Return all views (B, T) of the histories ``ids`` (B, T), of which ``words`` (B, T) are items."""
        drawn = [ids] * self.whole
        for number in range(self.whole, self.num_views):
            pair, second = divmod(number - self.whole, 2)
            operation = self._two(randomness.named(f"pair {pair}"))[second]
            own = randomness.named(str(number))
            changed = torch.stack([change(ids, words, own) for change in self.operations])
            drawn.append(changed[operation, torch.arange(len(ids), device=ids.device)])
        return drawn

    def _two(self, randomness: Randomness) -> tuple[Tensor, Tensor]:
        """Draw the numbers (B,) of two operations for each sample, which differ if there are two or more."""
        count = len(self.operations)
        first, further = randomness.uniform("operations", 2).unbind(1)
        one = (first * count).long()
        return one, (one + 1 + (further * (count - 1)).long()) % count

    def _cropped(self, ids: Tensor, words: Tensor, randomness: Randomness) -> Tensor:
        kept = _part(words, self.crop or 0.0, randomness.uniform("crop", 1), least=1)
        return compacted(ids, kept, self.pad)

    def _masked(self, ids: Tensor, words: Tensor, randomness: Randomness) -> Tensor:
        drawn = torch.where(words, randomness.uniform("mask", ids.shape[1]), 2.0)
        rank = drawn.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
        hidden = words & (rank < ((self.mask or 0.0) * words.sum(1, keepdim=True)).floor())
        return ids.masked_fill(hidden, self.column.mask or 0)

    def _reordered(self, ids: Tensor, words: Tensor, randomness: Randomness) -> Tensor:
        moved = _part(words, self.reorder or 0.0, randomness.uniform("part", 1), least=0)
        place = torch.arange(ids.shape[1], device=ids.device, dtype=torch.float32).expand_as(ids)
        start, length = moved.float().argmax(1, keepdim=True), moved.sum(1, keepdim=True)
        drawn = start + randomness.uniform("order", ids.shape[1]) * length  # between the places before and after
        return ids.gather(1, torch.where(moved, drawn, place).argsort(dim=1, stable=True))


def _part(words: Tensor, share: float, place: Tensor, least: int) -> Tensor:
    """Return (B, T) bool, True at floor(share * n) consecutive ones of n items, at ``least`` of them if there are."""
    count = words.sum(1, keepdim=True)
    exact = (share * count).floor() / count.clamp(min=1)
    return span(words, exact, place, count, least)
