"""Views of a vector in which some of its features are changed: SCARF's draws from their marginals, or a mask."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sslcli.config.ranges import Share
from sslcli.errors import UserError
from sslcli.randomness import Randomness
from sslcli.types import Field, Spec, View
from sslcli.views.base import Views, normalise


class _ChangedFeatures(Views):
    """Views in which a drawn share of the features is changed; all numbers of one feature are changed together.

    A feature is what the fact ``COLUMN.groups`` (D,) says: the numbers of one column of a table, such as a category's
    one-hot numbers. Without this fact every number is a feature.
    """

    groups: Tensor  # (D,) int64, the feature that each number belongs to

    def __init__(self, spec: Spec, num_views: int, field: str | None, share: float, both: bool) -> None:
        super().__init__()
        self.field = field or _only_vector(spec)
        self.described: Field = spec[self.field]
        if self.described.kind != "vector" or len(self.described.shape) != 1:
            raise ValueError(f"the column '{self.field}' is {self.described}, and these views are of vectors (D,)")
        width = self.described.shape[0]
        groups = spec.facts.get(f"{self.field}.groups", torch.arange(width))
        self.register_buffer("groups", groups, persistent=False)
        self.num_features = int(groups.max()) + 1
        self.count = min(max(int(share * self.num_features), 1 if share else 0), self.num_features)
        self.changed_views = [both or k > 0 or num_views == 1 for k in range(num_views)]

    @torch.no_grad()
    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        x = self._clean(columns)
        return [
            View(self._changed(x, randomness.named(f"view{k}")) if is_changed else x, self.field)
            for k, is_changed in enumerate(self.changed_views)
        ]

    def evaluation_view(self, columns: Mapping[str, Tensor], field: str | None = None) -> View:
        if field not in (None, self.field):
            raise UserError(f"views.field={self.field}: no view is made of the column '{field}'.")
        return View(self._clean(columns), self.field)

    def _clean(self, columns: Mapping[str, Tensor]) -> Tensor:
        return normalise(columns[self.field].float(), self.described)

    def _drawn(self, randomness: Randomness) -> Tensor:
        """Return (B, D) bool, True for the numbers of ``count`` features, which are drawn for each sample."""
        draws = randomness.uniform("which", self.num_features)
        rank = draws.argsort(dim=1, stable=True).argsort(dim=1)
        return (rank < self.count)[:, self.groups]

    def _changed(self, x: Tensor, randomness: Randomness) -> Tensor:
        raise NotImplementedError


class Scarf(_ChangedFeatures):
    """SCARF's corruption (Bahri et al. 2022, arXiv:2106.15147, algorithm 1): features get another sample's values.

    Of M features, floor(corruption_rate * M), but at least one, are drawn for each sample and replaced, each by its
    value in a training sample that is drawn for it alone: a draw from its marginal. The values are those of up to 4,096
    training samples in the fact ``COLUMN.sample`` (N, D), never those of the batch, so that the views are the same
    however a batch is divided.

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads.
        field: the column; null takes the only vector.
        corruption_rate: share of the features that are replaced.
        both: whether the first view is corrupted too; the paper compares a sample as it is with its corruption.

    Raises:
        ValueError: the column holds no vectors (D,), or the dataset has no sample of its values.
    """

    sample: Tensor  # (N, D) training samples, normalised

    def __init__(
        self,
        view_spec: Spec,
        spec: Spec,
        num_views: int,
        *,
        field: str | None = None,
        corruption_rate: Share = 0.6,
        both: bool = False,
    ) -> None:
        super().__init__(spec, num_views, field, corruption_rate, both)
        values = spec.facts.get(f"{self.field}.sample")
        if values is None:
            raise ValueError(
                f"the dataset has no fact '{self.field}.sample', training samples (N, D) to draw values from; "
                "use views=mask_features, or let the dataset's fit make it"
            )
        self.register_buffer("sample", normalise(values.float(), self.described), persistent=False)

    def _changed(self, x: Tensor, randomness: Randomness) -> Tensor:
        rows = (randomness.uniform("from", self.num_features) * len(self.sample)).long()
        return torch.where(self._drawn(randomness), self.sample.gather(0, rows[:, self.groups]), x)


class MaskFeatures(_ChangedFeatures):
    """Features hidden: 0 instead of their values, which is the mean of a standardised number and no category at all.

    This is the random feature masking of Yao et al. 2021 (arXiv:2007.12865, section 3.3).

    Args:
        view_spec: the dataset's columns.
        spec: the same.
        num_views: how many views the objective reads.
        field: the column; null takes the only vector.
        mask_ratio: share of the features that are hidden, rounded down, but at least one.
        both: whether the first view has hidden features too.

    Raises:
        ValueError: the column holds no vectors (D,).
    """

    def __init__(
        self,
        view_spec: Spec,
        spec: Spec,
        num_views: int,
        *,
        field: str | None = None,
        mask_ratio: Share = 0.3,
        both: bool = True,
    ) -> None:
        super().__init__(spec, num_views, field, mask_ratio, both)

    def _changed(self, x: Tensor, randomness: Randomness) -> Tensor:
        return x.masked_fill(self._drawn(randomness), 0)


def _only_vector(spec: Spec) -> str:
    names = [name for name, field in spec.items() if field.kind == "vector"]
    if len(names) != 1:
        found = f"several vectors: {', '.join(names)}" if names else "no column of vectors"
        raise ValueError(f"the dataset has {found}. Set field to a column of vectors, or choose other views")
    return names[0]
