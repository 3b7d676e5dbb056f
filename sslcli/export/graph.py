"""The encoder as a graph of operations, traced once, which runs without the encoder's Python code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import set_fused_attn, use_fused_attn
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sslcli.encoders.batchnorm import COUNTER
from sslcli.errors import UserError
from sslcli.export.base import Source, normalising, samples
from sslcli.run_dir.formatting import first_line
from sslcli.types import View


class Graph(nn.Module):
    """A module from input (B, *shape) to features (B, dim).

    Args:
        source: the run to export.
        preprocessing: whether the graph normalises its input; the input is then raw, with pixels in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, source: Source, *, preprocessing: bool) -> None:
        super().__init__()
        self.encoder, self.views = source.model.encoder, source.model.views
        self.column = column = source.field
        if preprocessing and not column.mean:
            raise UserError("format.preprocessing: this data is not normalised, so there is nothing to include.")
        self.preprocessing = preprocessing
        if preprocessing:
            shape = (-1, *(1,) * (len(column.shape) - 1))
            for name, values in (("mean", column.mean), ("std", column.std)):
                self.register_buffer(name, torch.tensor(values).reshape(shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled features."""
        if self.preprocessing:
            x = (x - self.mean) / self.std
        name = self.views.field
        # Ids have no preprocessing but that of the views, which say where padding is. The numbers of others come as
        # the encoder reads them.
        view = self.views.evaluation_view({name: x}) if self.column.is_ids else View(x, name)
        pooled: Tensor = self.encoder(view).pooled
        return pooled


def traced(source: Source, *, preprocessing: bool) -> ExportedProgram:
    """Trace the encoder's graph for batches of any size, and of tokens for texts of any length up to the column's.

    Raises:
        UserError: torch cannot trace it.
    """
    graph = Graph(source, preprocessing=preprocessing).eval()
    sizes = {0: Dim("batch")}
    if source.field.kind == "tokens" and source.field.shape[0] > 1:
        sizes[1] = Dim("length", min=1, max=source.field.shape[0])
    try:
        with torch.no_grad(), plain_attention():
            return torch.export.export(graph, (samples(source.field, 2),), dynamic_shapes={"x": sizes})
    except Exception as error:  # torch.export fails in many ways
        raise UserError(
            f"format: torch cannot trace this encoder ({first_line(error)}); use format=safetensors."
        ) from None


@contextmanager
def plain_attention() -> Iterator[None]:
    """Use attention as products and a softmax, which every runtime supports, instead of torch's fused kernel."""
    fused = use_fused_attn()
    set_fused_attn(False)
    try:
        yield
    finally:
        set_fused_attn(bool(fused))


def read_tensors(program: ExportedProgram, encoder: nn.Module) -> tuple[list[str], list[str]]:
    """Return the names of the encoder's tensors that the graph reads, and of those that it does not (a mask token)."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    read = {
        names[node.name]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names and node.users
    }
    ours = [name for name in encoder.state_dict() if not name.endswith(COUNTER)]
    return [n for n in ours if f"encoder.{n}" in read], [n for n in ours if f"encoder.{n}" not in read]


def first_lines(source: Source, preprocessing: bool, array: str = "torch.tensor") -> list[str]:
    """Return the lines that compute the graph's input ``x`` from the raw ``batch``."""
    *described, computed = normalising(source.field, array)
    return [*described, "x = batch" if preprocessing else computed]
