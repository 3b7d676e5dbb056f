"""A multi-layer perceptron for feature vectors, or for images that are flattened to vectors."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from sslcli.config.ranges import Count, Depth
from sslcli.encoders.base import Encoder
from sslcli.types import Encoded, Spec, View


class MLP(Encoder):
    """A linear layer, a norm and a ReLU, repeated ``depth`` times.

    Args:
        spec: the dataset's columns.
        field: the column to read; null takes the only one.
        hidden_dim: width of every layer, also of the output (``dim``).
        depth: number of hidden layers.
        norm: the norm after each linear layer: BatchNorm, or LayerNorm, which treats each sample alone.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        field: str | None = None,
        hidden_dim: Count = 256,
        depth: Depth = 1,
        norm: Literal["batch", "layer"] = "batch",
    ) -> None:
        super().__init__()
        if field is None and len(spec) > 1:
            raise ValueError(f"the dataset has the columns {', '.join(spec)}: set field to one of them")
        if hidden_dim < 1 or depth < 1:
            raise ValueError("hidden_dim and depth must be at least 1")
        self.field = field or next(iter(spec))
        column = spec[self.field]
        if column.is_ids:
            raise ValueError("this encoder reads numbers, and the column holds ids")
        width = 1
        for size in column.shape:
            width *= size
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(width, hidden_dim, bias=False), _norm(norm, hidden_dim), nn.ReLU(inplace=True)]
            width = hidden_dim
        self.trunk = nn.Sequential(*layers)
        self.spec = spec
        self.dim = hidden_dim
        self.token_dim = 0
        self.stride = 0

    def grid(self, view: View) -> tuple[int, ...]:
        raise ValueError("encoder=mlp has no tokens to mask; choose a convolutional net or a transformer")

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        self.expect(view, self.field)
        pooled = self.trunk(view.x.flatten(1))
        return Encoded(pooled[:, None], pooled)


def _norm(kind: str, width: int) -> nn.Module:
    return nn.BatchNorm1d(width) if kind == "batch" else nn.LayerNorm(width)
