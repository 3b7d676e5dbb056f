"""Views of several columns: one pipeline a column, such as an image's augmentations beside a text's ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.config.instantiate import build
from sslcli.errors import UserError, suggest
from sslcli.randomness import Randomness
from sslcli.types import Crops, Spec, View
from sslcli.views.base import Views, check_count


class Composed(Views):
    """Makes each view by the pipeline of its column. Each pipeline has random numbers of its own.

    Args:
        view_spec: columns at the size of training views.
        spec: columns at the size of the evaluation view.
        num_views: how many views the objective reads, without local views.
        parts: config of each column's pipeline by the column's name.
        order: the column of each view; a column that is named twice makes two views. Local views (multi-crop) follow.

    Raises:
        ValueError: parts and order do not fit together, or the objective reads another number of views.
        UserError: a part has an unknown key or an invalid value.
    """

    def __init__(self, view_spec: Spec, spec: Spec, num_views: int, *, parts: dict[str, Any], order: list[str]) -> None:
        super().__init__()
        for name in order:
            if name not in parts:
                raise ValueError(f"order names '{name}', which has no part. {suggest(name, parts)}")
        for name in parts:
            if name not in order:
                raise ValueError(f"parts.{name} makes no view; add '{name}' to order, or leave the part out")
        check_count("order", order, num_views)
        self.order = tuple(order)
        self.parts = {name: self._built(name, parts[name], view_spec, spec) for name in parts}
        self.registered = nn.ModuleList(self.parts.values())  # a ModuleDict refuses some names, such as "items"
        self.field = self.order[0]
        self.num_local = sum(part.num_local for part in self.parts.values())
        self._with_target = True

    def _built(self, name: str, node: Any, view_spec: Spec, spec: Spec) -> Views:
        where = f"views.parts.{name}"
        field = node.get("field", name) if isinstance(node, Mapping) else name
        if field != name:
            raise UserError(f"{where}.field={field}: this part reads the column '{name}'. Set {where}.field={name}")
        view_column, column = (Spec({name: of[name]}, facts=of.facts) for of in (view_spec, spec))
        return build(node, Views, view_column, column, self.order.count(name), where=where)

    @property
    def fields(self) -> tuple[str, ...]:
        return self.order

    @property
    def with_target(self) -> bool:
        """Whether training views have a target, in every part."""
        return self._with_target

    @with_target.setter
    def with_target(self, value: bool) -> None:
        self._with_target = value
        for part in self.parts.values():
            part.with_target = value

    @torch.no_grad()
    def forward(self, columns: Mapping[str, Tensor], randomness: Randomness) -> list[View]:
        made = {name: part(columns, randomness.named(name)) for name, part in self.parts.items()}
        waiting = {name: iter(views) for name, views in made.items()}
        full = [next(waiting[name]) for name in self.order]
        return full + [view for rest in waiting.values() for view in rest]

    def evaluation_view(self, columns: Mapping[str, Tensor], field: str | None = None) -> View:
        name = field or self.field
        if name not in self.parts:
            raise UserError(f"views.order: no view is made of the column '{name}'. {suggest(name, self.parts)}")
        return self.parts[name].evaluation_view(columns)

    def crops(self, randomness: Randomness) -> Crops | None:
        found = [part.crops(randomness.named(name)) for name, part in self.parts.items()]
        cut = [crops for crops in found if crops is not None]
        if len(cut) > 1:
            raise UserError("dataset.crop=worker cuts the crops of one image column. Use dataset.crop=device.")
        return cut[0] if cut else None
