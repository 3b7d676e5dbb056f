"""Several objectives on one encoder, as a weighted sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sslcli.build import build
from sslcli.encoders.base import Encoder
from sslcli.errors import suggest
from sslcli.features import Features
from sslcli.objectives.base import Objective
from sslcli.types import Loss


class Joint(Objective):
    """The sum of ``weights[name] * parts[name]``; parts that read the same clean views share the pass.

    Args:
        encoder: what is trained, by all parts.
        parts: config of each objective by name.
        weights: weight of each objective by name.
    """

    def __init__(self, encoder: Encoder, *, parts: dict[str, Any], weights: dict[str, float]) -> None:
        super().__init__()
        if not parts:
            raise ValueError("parts is empty; name at least one objective")
        for name in parts:
            if name not in weights:
                raise ValueError(f"the part '{name}' has no weight; set objective.weights.{name}")
        for name, weight in weights.items():
            if name not in parts:
                raise ValueError(f"weights.{name} has no part. {suggest(name, parts)}")
            if not isinstance(weight, (int, float)) or isinstance(weight, bool):
                raise ValueError(f"weights.{name}={weight!r} is not a number")
        self.weights = dict(weights)
        self.parts = nn.ModuleDict(
            {name: build(node, Objective, encoder, where=f"objective.parts.{name}") for name, node in parts.items()}
        )
        self.num_views = max(part.num_views for part in self._parts().values())
        self.needs_target = any(part.needs_target for part in self._parts().values())
        self.couples_batch = any(part.couples_batch for part in self._parts().values())

    def _parts(self) -> dict[str, Objective]:
        return {name: part for name, part in self.parts.items() if isinstance(part, Objective)}

    def before_step(self, progress: float) -> None:
        for part in self._parts().values():
            part.before_step(progress)

    def project(self, features: Features) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": rows
            for name, part in self._parts().items()
            for key, rows in part.project(features).items()
        }

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        losses = {name: part.loss(_of(name, outputs)) for name, part in self._parts().items()}
        total = sum(self.weights[name] * loss.total for name, loss in losses.items())
        parts: dict[str, Tensor] = {}
        for name, loss in losses.items():
            parts[name] = loss.total.detach()
            parts.update({f"{name}/{key}": value for key, value in loss.parts.items()})
        assert isinstance(total, Tensor)
        return Loss(total, parts)

    def after_step(self, outputs: Mapping[str, Tensor]) -> None:
        for name, part in self._parts().items():
            part.after_step(_of(name, outputs))


def _of(name: str, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}/"): rows for key, rows in outputs.items() if key.startswith(f"{name}/")}
