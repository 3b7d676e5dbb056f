"""The base of MoCo v3 and BYOL: the student predicts the teacher's embedding of the other view."""

from __future__ import annotations

from torch import Tensor

from sslcli.encoders.base import Encoder
from sslcli.features import Features
from sslcli.objectives.base import Objective, two_views
from sslcli.objectives.heads import Norm, mlp_head, widened
from sslcli.objectives.multi_crop import local_rows
from sslcli.objectives.teacher import Teacher, checked_momentum, rising


class MomentumPredictor(Objective):
    """A projector in student and teacher, a predictor in the student only, and a rising teacher momentum.

    Each of the two views is a batch of its own for BatchNorm, as published. Small views (multi-crop) are one batch;
    they predict the teacher's embedding of both full-size views. The teacher sees full-size views only.

    Args:
        encoder: the encoder to train.
        momentum: momentum of the teacher at the start; it rises to 1 along half a cosine.
        hidden_dim: width of the hidden layers of projector and predictor.
        width: width of the embedding.
        depth: linear layers of the projector; the predictor has two.
        norm: norm in both heads; ``batch`` as published, ``layer`` and ``none`` do not couple the batch.
        projector_norm: add a norm without scale and shift after the projector's last layer.
        predictor_norm: add such a norm after the predictor's last layer.
        last_bias: whether the last layers have a bias, where no norm follows.
        reads: the numbers of the two views that it compares; null is the first two.
    """

    needs_teacher = True
    takes_local = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        momentum: float,
        hidden_dim: int,
        width: int,
        depth: int,
        norm: Norm,
        projector_norm: bool,
        predictor_norm: bool,
        last_bias: bool,
        reads: list[int] | None,
    ) -> None:
        super().__init__()
        self.reads = two_views(reads)
        self.momentum = checked_momentum(momentum)
        self.head = mlp_head(
            encoder.dim, hidden_dim, width, depth=depth, norm=norm, last_norm=projector_norm, last_bias=last_bias
        )
        self.predictor = mlp_head(
            width, hidden_dim, width, depth=2, norm=norm, last_norm=predictor_norm, last_bias=last_bias
        )
        self.teacher = Teacher(encoder, self.head)

    def before_step(self, progress: float) -> None:
        self.teacher.follow(rising(self.momentum, progress))

    def project(self, features: Features) -> dict[str, Tensor]:
        """Return the predictions q1, q2 and local, and the teacher's projections k1, k2 of the full-size views."""
        outputs = {}
        for i, view in enumerate(self.reads):
            (encoded,) = features.clean(view)
            outputs[f"q{i + 1}"] = widened(self._predictions(encoded.pooled))
        for i, view in enumerate(self.reads):
            outputs[f"k{i + 1}"] = self.teacher.project(features, view)
        return {**outputs, **local_rows(features, self.num_local, self._predictions)}

    def _predictions(self, pooled: Tensor) -> Tensor:
        predictions: Tensor = self.predictor(self.head(pooled))
        return predictions
