"""The interface of views pipelines, and a pipeline that passes columns through unchanged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

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
    num_local: int = 0  # number of smaller views, which come after the others (multi-crop)

    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        """Return ``num_views`` random views of the batch, without gradients, in autocast's precision."""
        raise NotImplementedError

    def evaluation_view(self, columns: Mapping[str, Tensor]) -> View:
        """Return the view without augmentation, for evaluation."""
        raise NotImplementedError

    def crops(self, randomness: Randomness) -> Crops | None:
        """Return the crops of ``forward``, for a dataset that cuts them from full images; None if there are none."""
        return None


class PassThrough(Views):
    """Uses columns as views: the same ids twice for views that differ by dropout, or one column for each of two towers.

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads.
        columns: the column of each view; null repeats the dataset's first.
    """

    def __init__(self, view_spec: Spec, spec: Spec, num_views: int, *, columns: list[str] | None = None) -> None:
        super().__init__()
        self.columns = list(columns) if columns else [next(iter(spec))] * num_views
        if len(self.columns) < num_views:
            raise ValueError(f"columns={self.columns} makes {len(self.columns)} views; {num_views} are needed")
        self.columns = self.columns[: max(num_views, 1)]
        self.field = self.columns[0]
        self.fields = {name: spec[name] for name in self.columns}
        for name, column in self.fields.items():
            if len(column.shape) == 3:
                raise ValueError(f"the column '{name}' holds images; use an image pipeline such as views=none")

    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        return [self._view(columns, name) for name in self.columns]

    def evaluation_view(self, columns: Mapping[str, Tensor]) -> View:
        return self._view(columns, self.columns[0])

    def _view(self, columns: Mapping[str, Tensor], name: str) -> View:
        field = self.fields[name]
        x = columns[name]
        return View(x if field.vocab else normalise(x.float(), field), name)


def normalise(x: Tensor, field: Field) -> Tensor:
    """Return (x - mean) / std, with the field's statistics along dimension 1; x itself if the field has none."""
    if not field.mean:
        return x
    shape = (-1, *(1,) * (x.dim() - 2))
    scale = tuple(1 / std for std in field.std)
    shift = tuple(-mean / std for mean, std in zip(field.mean, field.std))
    scaled, shifted = (constant(values, x.dtype, x.device).view(shape) for values in (scale, shift))
    return torch.addcmul(shifted, x, scaled)  # one pass over x
