"""Several objectives on one encoder, as a weighted sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sslcli.config.instantiate import build
from sslcli.encoders.base import Encoder
from sslcli.errors import suggest
from sslcli.features import Features
from sslcli.objectives.base import Masking, Objective, scalar
from sslcli.objectives.ramped_weight import Weight
from sslcli.randomness import Randomness
from sslcli.types import Encoded, Guesses, Loss, Reconstruction, View


class Joint(Objective):
    """The sum of ``weights[name] * parts[name]`` on shared passes through the encoder.

    With ``share=none`` the contrastive parts read clean views, and the reconstruction makes a masked pass of its own.
    With ``share=masked`` one masked pass per view serves the reconstruction and is also the student of the other
    parts, whose teacher sees clean views (masked view 1 against the teacher's view 2, and the reverse).
    The pooled vector averages visible tokens. Two heavily masked views have too little in common to be contrasted
    with each other, so a teacher is required (as in CMAE, arXiv:2207.13532, and iBOT, arXiv:2111.07832).

    Each part reads the views that its ``reads`` names; all parts together leave out none.

    Small views (multi-crop, with ``share=none``) go to the parts that take them; the others read full-size views.

    Args:
        encoder: the encoder that all parts train.
        parts: config of each objective by name.
        weights: weight of each objective by name: a number, or a ramp ``{from, to, start, end}`` over training.
        share: ``none`` shares the passes over clean views, ``masked`` those over masked views.
        balance: ``chance`` divides each part's loss by its chance level, so that weights are comparable.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        parts: dict[str, Any],
        weights: dict[str, Any],
        share: Literal["none", "masked"] = "none",
        balance: Literal["none", "chance"] = "none",
    ) -> None:
        super().__init__()
        if not parts:
            raise ValueError("parts is empty; name at least one objective")
        for name in parts:
            if name not in weights:
                raise ValueError(f"the part '{name}' has no weight; set objective.weights.{name}")
        for name in weights:
            if name not in parts:
                raise ValueError(f"weights.{name} has no part. {suggest(name, parts)}")
        self.ramps = {name: Weight(name, weights[name]) for name in parts}
        self.weights = {name: ramp.value(0.0) for name, ramp in self.ramps.items()}
        self.parts = nn.ModuleDict(
            {name: build(node, Objective, encoder, where=f"objective.parts.{name}") for name, node in parts.items()}
        )
        self.balance = balance
        self.masked = _the_masked_part(self._parts()) if share == "masked" else None
        self.terms = tuple(parts)
        self.similarity = next(iter(self._parts().values())).similarity  # parts that rank come first
        self.reads = tuple(sorted({i for part in self._parts().values() for i in part.reads}))
        if self.masked is not None:
            self.masked.reads = self.reads
        self.needs_target = any(part.needs_target for part in self._parts().values())
        self.takes_local = self.masked is None and any(part.takes_local for part in self._parts().values())
        self.couples_batch = any(part.couples_batch for part in self._parts().values())
        self.needs_teacher = any(part.needs_teacher for part in self._parts().values())
        labels = {part.label for part in self._parts().values() if part.label is not None}
        if len(labels) > 1:
            raise ValueError(f"the parts name different label columns: {', '.join(sorted(labels))}")
        self.label = next(iter(labels), None)

    def _parts(self) -> dict[str, Objective]:
        return {name: part for name, part in self.parts.items() if isinstance(part, Objective)}

    def check(self, num_samples: int, micro_batch: int) -> None:
        for part in self._parts().values():
            part.check(num_samples, micro_batch)

    def expect_local(self, num_local: int) -> None:
        super().expect_local(num_local)
        for part in self._parts().values():
            if part.takes_local:
                part.expect_local(num_local)

    def before_step(self, progress: float) -> None:
        self.weights = {name: ramp.value(progress) for name, ramp in self.ramps.items()}
        for part in self._parts().values():
            part.before_step(progress)

    def project(self, features: Features) -> dict[str, Tensor]:
        if self.masked is not None:
            features = _MaskedStudentFeatures(features, self.masked)
        return {
            f"{name}/{key}": rows
            for name, part in self._parts().items()
            for key, rows in part.project(features).items()
        }

    def hidden(self, view: View, randomness: Randomness, i: int) -> Tensor | None:
        masks = (part.hidden(view, randomness, i) for part in self._parts().values())
        return next((mask for mask in masks if mask is not None), None)

    def reconstruction(self, features: Features, i: int) -> Reconstruction | None:
        made = (part.reconstruction(features, i) for part in self._parts().values())
        return next((reconstruction for reconstruction in made if reconstruction is not None), None)

    def guesses(self, features: Features, i: int) -> Guesses | None:
        made = (part.guesses(features, i) for part in self._parts().values())
        return next((guesses for guesses in made if guesses is not None), None)

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        losses = {name: part.loss(_of(name, outputs)) for name, part in self._parts().items()}
        terms = {name: self.weights[name] * loss.total / self._scale(name, loss) for name, loss in losses.items()}
        parts: dict[str, Tensor] = {}
        for name, loss in losses.items():
            parts[name] = loss.total.detach()
            parts.update({f"{name}/{key}": value for key, value in loss.parts.items()})
            if loss.chance is not None:
                parts[f"{name}/chance"] = scalar(loss.chance, loss.total)
            if self.ramps[name].moves:
                parts[f"{name}/weight"] = scalar(self.weights[name], loss.total)
        return Loss(torch.stack(list(terms.values())).sum(), parts, terms=terms)

    def _scale(self, name: str, loss: Loss) -> float | Tensor:
        """Return the number that the part's loss is divided by."""
        if self.balance == "none":
            return 1.0
        if loss.chance is None or (isinstance(loss.chance, (int, float)) and loss.chance <= 0):
            raise ValueError(f"balance=chance: the part '{name}' has no chance level above 0; use balance=none")
        return loss.chance

    def after_step(self, outputs: Mapping[str, Tensor]) -> None:
        for name, part in self._parts().items():
            part.after_step(_of(name, outputs))


class _MaskedStudentFeatures(Features):
    """Features in which the student sees every view masked and the teacher sees every view clean."""

    def __init__(self, features: Features, masked: Masking) -> None:
        of = features
        super().__init__(of.encode, of.views, of.randomness, of.columns, of.ranks, of.at_once)
        self._encode_masked: Callable[[int], Encoded] = lambda i: masked.masked_pass(features, i)

    def clean(self, *which: int) -> list[Encoded]:
        for i in which:
            if (i,) not in self._clean:
                self._clean[i,] = [self._encode_masked(i)]
        return [self._clean[i,][0] for i in which]

    def masked(self, i: int, mask: Tensor, *, view: View | None = None, visible_only: bool = False) -> Encoded:
        """Return the encoding of ``clean``: the mask is a function of the step's randomness, so it is the same."""
        return self.clean(i)[0]


def _the_masked_part(parts: Mapping[str, Objective]) -> Masking:
    """Return the one part that hides something, whose masked pass all parts share."""
    found = [part for part in parts.values() if isinstance(part, Masking)]
    if len(found) != 1:
        raise ValueError(f"share=masked needs one masked part (simmim or masked_tokens), and there are {len(found)}")
    for name, part in parts.items():
        if part is not found[0] and not part.needs_teacher:
            raise ValueError(
                f"share=masked contrasts masked views with a teacher's clean ones, and the part '{name}' has no "
                "teacher; use moco or byol, or share=none"
            )
        if getattr(part, "bn_splits", 1) > 1:
            raise ValueError(f"share=masked encodes whole micro-batches; set parts.{name}.bn_splits=1")
    return found[0]


def _of(name: str, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}/"): rows for key, rows in outputs.items() if key.startswith(f"{name}/")}
