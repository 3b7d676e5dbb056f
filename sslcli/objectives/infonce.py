"""InfoNCE in five forms: two views of a sample attract, views of other samples repel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives import contrast
from sslcli.objectives.base import Objective
from sslcli.objectives.heads import Norm, mlp_head, widened
from sslcli.objectives.temperature import Temperature
from sslcli.types import Loss

Form = Literal["nt_xent", "cross_view", "decoupled", "sigmoid", "supervised"]


class InfoNCE(Objective):
    """Pull the views of one sample together and push the views of others away.

    Both views go through the encoder as one batch, so its BatchNorm sees them together.

    Args:
        encoder: what is trained.
        form: ``nt_xent`` (SimCLR, 2N - 1 candidates), ``cross_view`` (CLIP, SimCSE: the N other views),
            ``decoupled`` (DCL: the positive not among the candidates), ``sigmoid`` (SigLIP: each pair by itself)
            or ``supervised`` (SupCon: all samples with the same label are positives).
        temperature: divides the cosine similarities.
        learn_temperature: descend it too (and, in ``sigmoid``, the bias), from ``temperature``, in [0.01, 1].
        symmetric: in ``cross_view``, each view as anchor; else the first only.
        bias: in ``sigmoid``, added to every logit; negative, as almost all pairs are negatives.
        label: in ``supervised``, a name for the dataset's labels as a column.
        hidden_dim: width of the projector's hidden layers.
        width: width of the embedding.
        depth: linear layers in the projector.
        norm: in the projector; ``batch`` as published, ``layer`` and ``none`` do not couple the batch.
    """

    couples_batch = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        form: Form = "nt_xent",
        temperature: float = 0.2,
        learn_temperature: bool = False,
        symmetric: bool = True,
        bias: float = -10.0,
        label: str | None = None,
        hidden_dim: int = 256,
        width: int = 128,
        depth: int = 2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if (form == "supervised") != (label is not None):
            raise ValueError("form=supervised and label=NAME belong together: give both or neither")
        self.form, self.symmetric, self.label = form, symmetric, label
        self.temperature = Temperature(temperature, learned=learn_temperature)
        self.bias: float | nn.Parameter = bias
        if form == "sigmoid" and learn_temperature:
            self.bias = nn.Parameter(torch.tensor(float(bias)))
        self.head = mlp_head(encoder.dim, hidden_dim, width, depth=depth, norm=norm)

    def before_step(self, progress: float) -> None:
        self.temperature.clamp()

    def project(self, features: Features) -> dict[str, Tensor]:
        pooled = torch.cat([encoded.pooled for encoded in features.clean(0, 1)])
        z1, z2 = F.normalize(widened(self.head(pooled)), dim=1).chunk(2)
        outputs = {"z1": z1, "z2": z2}
        if self.label is not None:
            outputs["label"] = features.columns[self.label]
        return outputs

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        z1, z2 = outputs["z1"].detach(), outputs["z2"].detach()
        parts = {"positive_similarity": (z1 * z2).sum(1).mean(), **self.temperature.parts()}
        forms: dict[str, Callable[..., Tensor]] = {
            "nt_xent": self._nt_xent,
            "cross_view": self._cross_view,
            "decoupled": self._decoupled,
            "sigmoid": self._sigmoid,
            "supervised": self._supervised,
        }
        return Loss(forms[self.form](**outputs), parts, self.chance(len(z1)))

    def _nt_xent(self, z1: Tensor, z2: Tensor) -> Tensor:
        return contrast.nt_xent(z1, z2, self.temperature())

    def _cross_view(self, z1: Tensor, z2: Tensor) -> Tensor:
        return contrast.info_nce(z1, z2, self.temperature(), symmetric=self.symmetric)

    def _decoupled(self, z1: Tensor, z2: Tensor) -> Tensor:
        return contrast.decoupled(z1, z2, self.temperature())

    def _sigmoid(self, z1: Tensor, z2: Tensor) -> Tensor:
        return contrast.sigmoid(z1, z2, 1 / self.temperature(), self.bias)

    def _supervised(self, z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
        return contrast.supervised(z1, z2, label, self.temperature())

    def chance(self, batch_size: int) -> float | None:
        candidates = {
            "nt_xent": 2 * batch_size - 1,
            "cross_view": batch_size,
            "decoupled": 2 * batch_size - 2,
            "supervised": 2 * batch_size - 1,
        }.get(self.form)
        return math.log(candidates) if candidates else None
