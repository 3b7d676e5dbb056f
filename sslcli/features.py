"""The encodings that an objective reads, computed on first use and cached for the micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sslcli.distributed.ranks import Ranks
from sslcli.randomness import Randomness
from sslcli.types import Encoded, View

Encode = Callable[..., Encoded]  # (view, mask=None, visible_only=False)


class Features:
    """Encodes the views of one micro-batch on request.

    Args:
        encode: the encoder, possibly compiled: ``encode(view, mask)``.
        views: the views of the micro-batch.
        randomness: random numbers of the micro-batch's samples, for masks and noise.
        columns: the dataset's columns of the same samples, for an objective that reads labels.
        ranks: the processes of the run, each of which has a different micro-batch.
        at_once: encode all views at the first request, as one batch for each seed of noise; columns do not matter.
    """

    def __init__(
        self,
        encode: Encode,
        views: list[View],
        randomness: Randomness,
        columns: Mapping[str, Tensor] | None = None,
        ranks: Ranks | None = None,
        at_once: bool = False,
    ) -> None:
        self.encode = encode
        self.views = views
        self.randomness = randomness
        self.columns = columns or {}
        self.ranks = ranks or Ranks()
        self.at_once = at_once
        self._clean: dict[tuple[int, ...], list[Encoded]] = {}

    def clean(self, *which: int) -> list[Encoded]:
        """Return the unmasked encodings of the views ``which``; views of one call are encoded as one batch.

        With BatchNorm the grouping changes the result. Calls with the same arguments share one forward pass, also
        those of different objectives. Views of different columns or sizes are encoded separately. Negative numbers
        count from the last view.
        """
        asked = tuple(range(len(self.views))) if self.at_once else which
        if asked not in self._clean:
            self._clean[asked] = self._together(self.encode, asked)
        return [self._clean[asked][i] for i in which] if self.at_once else self._clean[asked]

    def masked(self, i: int, mask: Tensor, *, view: View | None = None, visible_only: bool = False) -> Encoded:
        """Return the encoding of view ``i`` where ``mask`` (B, *grid) hides patches, in a separate forward pass.

        Args:
            i: number of the view.
            mask: True hides a patch. With ``visible_only`` every sample must have the same number of hidden patches.
            view: what is encoded in its place, such as a text in which words were exchanged.
            visible_only: drop hidden tokens instead of replacing them; the encoder's ``can_drop`` must be True.
        """
        if visible_only:
            return self.encode(self.views[i], mask, visible_only=True)
        return self.encode(view or self.views[i], mask)

    @torch.no_grad()
    def teacher(self, encode: Encode, *which: int) -> list[Encoded]:
        """Return the unmasked encodings of the views ``which`` by a teacher's encoder, without gradients."""
        return self._together(encode, which)

    def _together(self, encode: Encode, which: Sequence[int]) -> list[Encoded]:
        groups: dict[tuple[object, ...], list[int]] = {}
        for i in which:
            view = self.views[i]
            key = (view.noise,) if self.at_once else (view.field, tuple(view.x.shape[1:]), view.noise)
            groups.setdefault(key, []).append(i)
        found: dict[int, Encoded] = {}
        for members in groups.values():
            joined = encode(_join([self.views[i] for i in members]))
            found.update(zip(members, joined.chunks(len(members))))
        return [found[i] for i in which]


def _join(views: list[View]) -> View:
    if len(views) == 1:
        return views[0]
    valid = [v.valid for v in views if v.valid is not None]
    all_valid = torch.cat(valid) if len(valid) == len(views) else None
    return View(torch.cat([v.x for v in views]), views[0].field, all_valid, noise=views[0].noise)


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules into eval mode for a ``with`` block: BatchNorm uses its running statistics, dropout is off."""
    were_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, was_training in zip(modules, were_training):
            module.train(was_training)
