"""InfoNCE in five forms: two views of a sample are pulled together, views of other samples are pushed apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.config.ranges import Count, HeadDepth, TemperatureValue
from sslcli.encoders.base import Encoder
from sslcli.errors import suggest
from sslcli.features import Features
from sslcli.objectives.base import Objective, distinct, two_views
from sslcli.objectives.heads import Norm, mlp_head, widened
from sslcli.objectives.ids import AUTO, Ids
from sslcli.objectives.losses import contrastive as contrast
from sslcli.objectives.losses.equal_samples import numbers_of, weight_of_negatives
from sslcli.objectives.multi_crop import local_rows, with_local
from sslcli.objectives.temperature import Temperature
from sslcli.types import Field, Loss

Form = Literal["nt_xent", "cross_view", "decoupled", "sigmoid", "supervised"]


class InfoNCE(Objective):
    """Pull the views of one sample together and push the views of others away.

    Both views go through the encoder as one batch, so its BatchNorm sees them together.

    Small views (multi-crop, in ``nt_xent`` and ``cross_view``) are further anchors, whose candidates are the N views
    of one full-size side. With L small views z_l the loss is
    (full + sum_l mean_v info_nce(z_l -> z_v)) / (1 + L), where full is the loss without small views and v runs over
    the full-size views (the second only, if ``symmetric`` is false). The gradient reaches both sides of each pair.

    Args:
        encoder: the encoder to train.
        form: ``nt_xent`` (SimCLR, 2N - 1 candidates), ``cross_view`` (CLIP, SimCSE: the N other views),
            ``decoupled`` (DCL: the positive is not a candidate), ``sigmoid`` (SigLIP: each pair is classified alone)
            or ``supervised`` (SupCon: all samples with the same label are positives).
        temperature: divides the cosine similarities.
        learn_temperature: train the temperature (and, in ``sigmoid``, the bias) too, from ``temperature``,
            within [0.01, 1].
        symmetric: in ``cross_view``, use both views as anchors instead of the first only.
        bias: in ``sigmoid``, added to every logit; negative, as almost all pairs are negatives.
        label: in ``supervised``, the column name given to the dataset's labels.
        hidden_dim: width of the projector's hidden layers.
        width: width of the embedding.
        depth: linear layers in the projector; 0 compares the encoder's output itself, whatever its width.
        norm: norm in the projector; ``batch`` as published, ``layer`` and ``none`` do not couple the batch.
        last_norm: add the norm, without scale and shift, after the projector's last layer, as SimCLR's code does.
        same: a column of tokens or ids: samples with equal values there are no negatives of each other, as the same
            text twice in a batch is none of itself. Padding does not count. ``auto``: the ids that the views are of; of
            pairs, samples with the same user or the same item.
        log_q: in ``cross_view``, subtract from the logit of each candidate the logarithm of its share of the training
            pairs, as popular ones are in more batches (Yi et al. 2019). ``auto``: where the views are ids of users and
            items that these data have a graph of, and ``unique`` is false.
        unique: in ``cross_view``, of views of one id each: an id that a batch has several times counts once, as anchor
            and as candidate (SGL, SimGCL, XSimGCL).
        layer: compare the pooled vector of one view with the vector after this layer of the graph instead of another
            view (XSimGCL, Yu et al. 2023, arXiv:2209.02544, equation 9).
        reads: the numbers of the two views that it compares; null is the first two. With ``layer``, of the one view.

    Raises:
        ValueError: these values contradict each other, or the encoder lacks what they need.
    """

    couples_batch = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        form: Form = "nt_xent",
        temperature: TemperatureValue = 0.2,
        learn_temperature: bool = False,
        symmetric: bool = True,
        bias: float = -10.0,
        label: str | None = None,
        hidden_dim: Count = 256,
        width: Count = 128,
        depth: HeadDepth = 3,
        norm: Norm = "batch",
        last_norm: bool = False,
        same: str | None = None,
        log_q: Literal["auto"] | bool = "auto",
        unique: bool = False,
        layer: Count | None = None,
        reads: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.reads = two_views(reads) if layer is None else distinct(reads or (0,), 1)
        if layer is not None and layer > getattr(encoder, "layers", 0):
            raise ValueError(f"layer={layer}: this encoder has no such layer; use encoder=nodes encoder.layers={layer}")
        self.layer, self.ids = layer, Ids(encoder, form, same, log_q, unique)
        if (form == "supervised") != (label is not None):
            raise ValueError("form=supervised and label=NAME belong together: give both or neither")
        self.form, self.symmetric, self.label = form, symmetric, label
        self.same = None if same == AUTO else same
        self.same_field = None if self.same is None else _field_of_same(encoder, form, self.same)
        self.takes_local = form in ("nt_xent", "cross_view")
        self.temperature = Temperature(temperature, learned=learn_temperature)
        self.bias: float | nn.Parameter = bias
        if form == "sigmoid" and learn_temperature:
            self.bias = nn.Parameter(torch.tensor(float(bias)))
        self.head = mlp_head(encoder.dim, hidden_dim, width, depth=depth, norm=norm, last_norm=last_norm)

    def before_step(self, progress: float) -> None:
        self.temperature.clamp()

    def project(self, features: Features) -> dict[str, Tensor]:
        encoded = features.clean(*self.reads)
        compared = [one.pooled for one in encoded]
        if self.layer is not None:
            compared.append(encoded[0].token(self.layer))
        z1, z2 = self._embedded(torch.cat(compared)).chunk(2)
        outputs = {"z1": z1, "z2": z2, **local_rows(features, self.num_local, self._embedded)}
        if self.label is not None:
            outputs["label"] = features.columns[self.label]
        if self.same is not None and self.same_field is not None:
            outputs["same"] = numbers_of(features.columns[self.same], self.same_field)
        return outputs | self.ids.rows([features.views[i] for i in self.reads])

    def _embedded(self, pooled: Tensor) -> Tensor:
        return F.normalize(widened(self.head(pooled)), dim=1)

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
        same = outputs.get("same")
        chance: float | Tensor | None = self.ids.chance(outputs, self.symmetric)
        if chance is None:
            chance = self.chance(len(z1)) if same is None else self._chance_of(weight_of_negatives(same))
        return Loss(forms[self.form](**outputs), parts, chance)

    def _nt_xent(self, z1: Tensor, z2: Tensor, local: Tensor | None = None, same: Tensor | None = None) -> Tensor:
        return self._with_local(contrast.nt_xent(z1, z2, self.temperature(), same), local, (z1, z2), same)

    def _cross_view(
        self,
        z1: Tensor,
        z2: Tensor,
        local: Tensor | None = None,
        same: Tensor | None = None,
        log_q1: Tensor | None = None,
        log_q2: Tensor | None = None,
    ) -> Tensor:
        if self.ids.unique and same is not None:
            return contrast.info_nce_of_ids(z1, z2, self.temperature(), same, self.symmetric)
        full = contrast.info_nce(z1, z2, self.temperature(), self.symmetric, same, (log_q1, log_q2))
        return self._with_local(full, local, (z1, z2) if self.symmetric else (z2,), same)

    def _with_local(self, full: Tensor, local: Tensor | None, targets: Sequence[Tensor], same: Tensor | None) -> Tensor:
        def pair(anchors: Tensor, target: Tensor) -> Tensor:
            return contrast.info_nce(anchors, target, self.temperature(), symmetric=False, same=same) / len(targets)

        return with_local(full, local, targets, pair)

    def _decoupled(self, z1: Tensor, z2: Tensor, same: Tensor | None = None) -> Tensor:
        return contrast.decoupled(z1, z2, self.temperature(), same)

    def _sigmoid(self, z1: Tensor, z2: Tensor, same: Tensor | None = None) -> Tensor:
        return contrast.sigmoid(z1, z2, 1 / self.temperature(), self.bias, same)

    def _supervised(self, z1: Tensor, z2: Tensor, label: Tensor) -> Tensor:
        return contrast.supervised(z1, z2, label, self.temperature())

    def _chance_of(self, negatives: Tensor) -> Tensor | None:
        """Return the chance level of a batch whose samples have ``negatives`` (N,) other samples as negatives."""
        candidates = {"nt_xent": 2 * negatives + 1, "cross_view": negatives + 1, "decoupled": 2 * negatives}
        if self.form not in candidates:
            return None
        full = candidates[self.form].clamp(min=1).log().mean()
        return (full + self.num_local * (negatives + 1).log().mean()) / (1 + self.num_local)

    def chance(self, batch_size: int) -> float | None:
        if self.same is not None or self.ids.compared or self.ids.log_share is not None:
            return None  # it depends on the batch
        candidates = {
            "nt_xent": 2 * batch_size - 1,
            "cross_view": batch_size,
            "decoupled": 2 * batch_size - 2,
            "supervised": 2 * batch_size - 1,
        }.get(self.form)
        if not candidates:
            return None
        return (math.log(candidates) + self.num_local * math.log(batch_size)) / (1 + self.num_local)


def _field_of_same(encoder: Encoder, form: Form, same: str) -> Field:
    """Return the description of the column ``same``; ValueError if it cannot say which samples are equal."""
    if form == "supervised":
        raise ValueError(f"same={same}: form=supervised has positives by label; leave same null")
    if same not in encoder.spec:
        raise ValueError(f"same={same}: the dataset has no such column. {suggest(same, encoder.spec)}")
    field = encoder.spec[same]
    if not field.is_ids:
        raise ValueError(f"same={same}: only tokens and ids are compared, and this column has {field}")
    return field
