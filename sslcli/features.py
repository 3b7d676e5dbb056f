"""What an objective sees of a batch: encodings of its views, computed when first asked for and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sslcli.distributed import Ranks
from sslcli.randomness import Randomness
from sslcli.types import Encoded, View

Encode = Callable[..., Encoded]  # (view, mask=None, visible_only=False)


class Features:
    """The encodings of one micro-batch.

    Args:
        encode: the encoder, possibly compiled: ``encode(view, mask)``.
        views: the views of the micro-batch.
        randomness: its random numbers, for masks and noise.
        columns: what the dataset yielded beside the views, for an objective that reads labels.
        ranks: the processes of the run, each with a micro-batch of its own.
    """

    def __init__(
        self,
        encode: Encode,
        views: list[View],
        randomness: Randomness,
        columns: Mapping[str, Tensor] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.encode = encode
        self.views = views
        self.randomness = randomness
        self.columns = columns or {}
        self.ranks = ranks or Ranks()
        self._clean: dict[tuple[int, ...], list[Encoded]] = {}

    def clean(self, *which: int) -> list[Encoded]:
        """The unmasked encodings of these views. Those asked for together go through as one batch.

        With BatchNorm the grouping matters: an objective asks in one call for what belongs together, and
        shares the pass with those that ask for the same views together. Views of different sizes never share
        a pass. Numbers below 0 count from the last view.
        """
        if which not in self._clean:
            self._clean[which] = self._together(self.encode, which)
        return self._clean[which]

    def masked(self, i: int, mask: Tensor, *, visible_only: bool = False) -> Encoded:
        """The encoding of view ``i`` with ``mask`` (B, *grid) hidden: a pass of its own, as the input differs.

        Args:
            i: which view.
            mask: True is hidden; the same number of patches in every sample if ``visible_only``.
            visible_only: leave hidden tokens out of the encoder (for an encoder that ``can_drop``).
        """
        if visible_only:
            return self.encode(self.views[i], mask, visible_only=True)
        return self.encode(self.views[i], mask)

    @torch.no_grad()
    def teacher(self, encode: Encode, *which: int) -> list[Encoded]:
        """The unmasked encodings of these views by a teacher's encoder, as one batch and without gradients."""
        return self._together(encode, which)

    def _together(self, encode: Encode, which: Sequence[int]) -> list[Encoded]:
        groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for i in which:
            groups.setdefault((self.views[i].field, tuple(self.views[i].x.shape[1:])), []).append(i)
        found: dict[int, Encoded] = {}
        for members in groups.values():
            joined = encode(_join([self.views[i] for i in members]))
            found.update(zip(members, _split(joined, len(members))))
        return [found[i] for i in which]


def _join(views: list[View]) -> View:
    if len(views) == 1:
        return views[0]
    valid = [v.valid for v in views if v.valid is not None]
    return View(torch.cat([v.x for v in views]), views[0].field, torch.cat(valid) if len(valid) == len(views) else None)


def _split(encoded: Encoded, parts: int) -> list[Encoded]:
    valid = encoded.valid.chunk(parts) if encoded.valid is not None else [None] * parts
    return [Encoded(*fields) for fields in zip(encoded.tokens.chunk(parts), encoded.pooled.chunk(parts), valid)]


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Eval mode: BatchNorm reads its running statistics and leaves them alone, nothing drops out."""
    were_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, was_training in zip(modules, were_training):
            module.train(was_training)
