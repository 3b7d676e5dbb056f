"""Views of whole texts: the same text twice, or a text and the one that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sslcli.config.ranges import Share
from sslcli.randomness import Randomness
from sslcli.types import Spec, View
from sslcli.views.base import PassThrough, valid_tokens
from sslcli.views.text.base import TextViews
from sslcli.views.text.words import thinned


class Dropout(TextViews):
    """Use the same ids for all views, which then differ by the encoder's dropout only (SimCSE, Gao et al. 2021).

    The encoder's ``dropout`` must be above 0, as else the views are equal (arXiv:2104.08821, section 3).
    """

    by_dropout = True

    def draw(self, ids: Tensor, words: Tensor, randomness: Randomness) -> Tensor:
        return ids


class Pairs(PassThrough):
    """Use a text as one view and the text that belongs to it, such as its title, as the other.

    One encoder reads both columns, so both views are named after the first: where they are equally wide they go
    through the encoder as one batch, else one after the other, which makes no difference to the result.

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads.
        columns: the column of each view.
        delete: share of the words of each view that are left out at random (Iyyer et al. 2015, "Deep Unordered
            Composition Rivals Syntactic Methods for Text Classification", section 3.2); one of them always stays.

    Raises:
        ValueError: a column is missing or is none of tokens, or their vocabularies differ, or ``delete`` is above 0 and
            a column has no padding.
    """

    def __init__(self, view_spec: Spec, spec: Spec, num_views: int, *, columns: list[str], delete: Share = 0.0) -> None:
        for name in columns:
            if name not in spec:
                raise ValueError(f"columns: the dataset has no column '{name}', only {', '.join(spec)}")
            if spec[name].kind != "tokens":
                raise ValueError(f"columns: '{name}' is of kind {spec[name].kind}, and pairs are of tokens")
            if delete and spec[name].pad is None:
                raise ValueError(f"delete={delete}: '{name}' has no id that fills shorter texts up (Field.pad)")
        if len({spec[name].vocab for name in columns}) > 1:
            raise ValueError(f"columns: {' and '.join(columns)} have different vocabularies, so no encoder reads both")
        super().__init__(view_spec, spec, num_views, columns=columns)
        self.delete = delete
        self.by_dropout = self.by_dropout and not delete

    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        made = super().forward(columns, randomness)
        if self.delete:
            made = [self._shortened(view, randomness.named(str(number))) for number, view in enumerate(made)]
        return [View(view.x, self.field, view.valid) for view in made]

    def _shortened(self, view: View, randomness: Randomness) -> View:
        column = self.described[view.field]
        assert column.pad is not None
        ids = thinned(view.x, column.words(view.x), self.delete, column.pad, randomness)
        return View(ids, view.field, valid_tokens(ids, column))
