"""The interface of views pipelines, and a pipeline that passes columns through unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sslcli.errors import UserError, suggest
from sslcli.randomness import Randomness
from sslcli.types import Crops, Field, Spec, View
from sslcli.views.constants import constant


class Views(nn.Module):
    """Makes the views of a whole batch on its device. A plug-in needs only these methods and attributes.

    The constructor is called with the columns at the size of training views, the columns at the size of evaluation,
    and the number of views that the objective reads.
    """

    field: str  # the column that ``evaluation_view`` reads
    with_target: bool = True  # whether training views have a target; False if no objective reads it
    by_dropout: bool = False  # whether views of a sample are equal, so that only the encoder's dropout tells them apart
    num_local: int = 0  # number of smaller views, which come after the others (multi-crop)

    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        """Return ``num_views`` random views of the batch, without gradients, in autocast's precision."""
        raise NotImplementedError

    def evaluation_view(self, columns: Mapping[str, Tensor], field: str | None = None) -> View:
        """Return the view of the column ``field`` without augmentation, for evaluation; None is ``self.field``.

        Raises:
            UserError: this pipeline makes no views of that column.
        """
        raise NotImplementedError

    @property
    def fields(self) -> tuple[str, ...]:
        """The column of each full-size view; if there is one entry, it is the column of all views."""
        return (self.field,)

    def crops(self, randomness: Randomness) -> Crops | None:
        """Return the crops of ``forward``, for a dataset that cuts them from full images; None if there are none."""
        return None


class PassThrough(Views):
    """Uses columns as views: the same ids twice for views that differ by dropout, or one column for each of two towers.

    Ids become int64, other numbers float32, normalised where the field has mean and std.

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads.
        columns: the column of each view; null repeats the dataset's first.

    Raises:
        ValueError: a column holds images, or the objective reads another number of views.
    """

    def __init__(self, view_spec: Spec, spec: Spec, num_views: int, *, columns: list[str] | None = None) -> None:
        super().__init__()
        self.columns = list(columns) if columns else [next(iter(spec))] * max(num_views, 1)
        if columns:
            check_count("columns", columns, num_views)
        self.field = self.columns[0]
        self.by_dropout = len(set(self.columns)) < len(self.columns)
        self.described = {name: spec[name] for name in self.columns}
        for name, column in self.described.items():
            if column.kind == "image":
                raise ValueError(f"the column '{name}' holds images; use an image pipeline such as views=none")

    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        return [self._view(columns, name) for name in self.columns]

    def evaluation_view(self, columns: Mapping[str, Tensor], field: str | None = None) -> View:
        name = field or self.field
        if name not in self.described:
            raise UserError(f"views.columns: no view is made of the column '{name}'. {suggest(name, self.described)}")
        return self._view(columns, name)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.columns)

    def _view(self, columns: Mapping[str, Tensor], name: str) -> View:
        field = self.described[name]
        x = columns[name].long() if field.is_ids else normalise(columns[name].float(), field)
        return View(x, name, valid_tokens(x, field))


def check_count(key: str, columns: Sequence[str], num_views: int) -> None:
    """Raise ValueError if ``columns``, the column of each view, are not as many as the objective reads views."""
    made = f"{key}={list(columns)} makes {len(columns)} views"
    if len(columns) < num_views:
        raise ValueError(f"{made}, and the objective reads view {num_views - 1}: {num_views} are needed")
    if len(columns) > max(num_views, 1):
        raise ValueError(
            f"{made}, and the objective reads {num_views}: view {num_views} ('{columns[num_views]}') is read by "
            f"nothing. Leave it out of {key}, or let a part of the objective read it"
        )


def valid_tokens(x: Tensor, field: Field) -> Tensor | None:
    """Return (B, T) bool, False where tokens (B, T) are padding; None for a column that has no padding."""
    return None if field.pad is None else x != field.pad


def normalise(x: Tensor, field: Field) -> Tensor:
    """Return (x - mean) / std, with the field's statistics along dimension 1; x itself if the field has none."""
    if not field.mean:
        return x
    shape = (-1, *(1,) * (x.dim() - 2))
    scale = tuple(1 / std for std in field.std)
    shift = tuple(-mean / std for mean, std in zip(field.mean, field.std))
    scaled, shifted = (constant(values, x.dtype, x.device).view(shape) for values in (scale, shift))
    return torch.addcmul(shifted, x, scaled)  # one pass over x
