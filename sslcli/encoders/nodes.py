"""Embeddings of users and items: one table for all nodes of the graph, and LightGCN's propagation over its edges."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.config.ranges import Count, HeadDepth, NotNegative, Positive, Share
from sslcli.encoders.base import Encoder
from sslcli.graph import Graph
from sslcli.randomness import fold
from sslcli.types import Encoded, Spec, View


class Nodes(Encoder):
    """A vector for each user and each item; with layers, the mean of what neighbours pass on (LightGCN).

    With the table E_0 and the normalised adjacency A = D^-1/2 B D^-1/2, where B is the graph of training interactions
    and D its degrees, layer k is E_k = A E_{k-1} and a node's vector is the mean of its rows of E_0 to E_L (He et al.
    2020, arXiv:2002.02126, equations 3 to 8). A pass computes all nodes, whatever is looked up, so the views of a
    micro-batch are looked up in one pass; ``layers=0`` only looks up rows of the table.

    A view with a seed of ``noise`` is of another pass, which ``noise`` and ``drop_edges`` change in a way that depends
    on this seed, the layer and the node or edge only: every micro-batch and process draws the same.

    Args:
        spec: the dataset's columns, with a graph among its facts.
        dim: width of the vectors.
        layers: how many times neighbours pass on their vectors; 0 is matrix factorisation.
        layer_0: whether the table itself is in the mean, as in LightGCN; SimGCL and XSimGCL leave it out.
        noise: in passes with a seed, the length of the vector that each layer adds to that of each node, drawn in its
            orthant (SimGCL, Yu et al. 2022, arXiv:2112.08679, equations 5 and 6).
        drop_edges: in passes with a seed, the share of edges left out in all layers (SGL, Wu et al. 2021,
            arXiv:2010.10783, equation 6); degrees are those of the edges that are left.
        std: standard deviation of the table at the start.

    Raises:
        ValueError: the data have no graph, or without layers there is nothing to add noise to.
    """

    at_once = True
    columns: Tensor  # (2E,) int64, the neighbours of node 0, then those of node 1, ...
    starts: Tensor  # (N,) int64, where those of each node begin
    edge: Tensor  # (2E,) int64, which edge that is
    edges: Tensor  # (2, E) int64
    weights: Tensor  # (2E,) float32, the entries of A

    def __init__(
        self,
        spec: Spec,
        *,
        dim: Count = 64,
        layers: HeadDepth = 0,
        layer_0: bool = True,
        noise: NotNegative = 0.0,
        drop_edges: Share = 0.0,
        std: Positive = 0.01,
    ) -> None:
        super().__init__()
        if not layers and (noise or drop_edges or not layer_0):
            raise ValueError("layers=0 has nothing but layer 0: no noise, no dropped edges, and layer_0=true")
        graph = Graph.of(spec)
        self.spec, self.dim, self.token_dim, self.stride = spec, dim, dim, 1
        self.layers, self.layer_0, self.noise, self.drop_edges = layers, layer_0, noise, drop_edges
        self.num_users, self.num_nodes = graph.num_users, graph.num_nodes
        self.embed = nn.Embedding(self.num_nodes, dim)
        nn.init.normal_(self.embed.weight, std=std)
        if layers:
            self._register(graph.edges)

    def _register(self, edges: Tensor) -> None:
        rows, columns = torch.cat([edges, edges.flip(0)], dim=1)
        order = rows.argsort(stable=True)
        lengths = torch.bincount(rows, minlength=self.num_nodes)
        made = {
            "columns": columns[order],
            "starts": lengths.cumsum(0) - lengths,
            "edge": order % edges.shape[1],
            "edges": edges,
            "weights": _normalised(edges, torch.ones(edges.shape[1]), self.num_nodes)[order % edges.shape[1]],
        }
        for name, buffer in made.items():  # not in checkpoints: they are facts of the data, which a run keeps anyway
            self.register_buffer(name, buffer, persistent=False)

    def in_words(self, num_micro: int) -> str:
        if not self.layers:
            return ""
        times = "once a step" if num_micro == 1 else f"{2 * num_micro} times a step, twice a micro-batch"
        return f"{self.layers} layers over {self.edges.shape[1]:,} edges, {times} for each seed of noise"

    def grid(self, view: View) -> tuple[int, ...]:
        raise ValueError("encoder=nodes has no part of a user or an item that could be hidden")

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        if mask is not None:
            self.grid(view)
        found = self.after_layers(view.noise)
        return _LookedUp(view.x, found, self._mean(found))

    def item_vectors(self) -> Tensor:
        """Return the vector (I, dim) of each item."""
        return self._mean(self.after_layers(None))[self.num_users :]

    def after_layers(self, seed: int | None) -> list[Tensor]:
        """Return E_0 to E_L, each (N, dim), of the pass with this seed of noise."""
        found = [self.embed.weight]
        if not self.layers:
            return found
        weights = self.weights if seed is None or not self.drop_edges else self._without_some(seed)
        for layer in range(1, self.layers + 1):
            rows = _Propagate.apply(found[-1], self.columns, self.starts, weights)
            if seed is not None and self.noise:
                drawn = _uniform(fold(seed, "noise", layer), rows.shape, rows.device)
                rows = rows + self.noise * rows.sign() * F.normalize(drawn, dim=1)
            found.append(rows)
        return found

    def _mean(self, found: list[Tensor]) -> Tensor:
        kept = found[0 if self.layer_0 else 1 :]
        return kept[0] if len(kept) == 1 else sum(kept[1:], kept[0]) / len(kept)

    def _without_some(self, seed: int) -> Tensor:
        drawn = _uniform(fold(seed, "edges"), self.edges.shape[1:], self.edges.device)
        kept = (drawn >= self.drop_edges).to(self.weights.dtype)
        return _normalised(self.edges, kept, self.num_nodes)[self.edge]


class _LookedUp(Encoded):
    """Rows of the layers' tables and of their mean, each looked up when it is first asked for: few objectives read all.

    Args:
        ids: (B,) int64.
        tables: the layers, each (N, dim).
        mean: (N, dim).
    """

    def __init__(self, ids: Tensor, tables: list[Tensor], mean: Tensor) -> None:
        self._ids, self._tables, self._mean = ids, tables, mean
        self.valid = None

    @functools.cached_property
    def pooled(self) -> Tensor:  # type: ignore[override]
        return self._mean.index_select(0, self._ids)  # on a CPU its gradient takes half the time of F.embedding's

    @functools.cached_property
    def tokens(self) -> Tensor:  # type: ignore[override]
        return torch.stack([self.token(layer) for layer in range(len(self._tables))], dim=1)

    def token(self, number: int) -> Tensor:
        return self._tables[number].index_select(0, self._ids)

    def chunks(self, parts: int) -> list[Encoded]:
        return [_LookedUp(ids, self._tables, self._mean) for ids in self._ids.chunk(parts)]


class _Propagate(torch.autograd.Function):
    """The product of the symmetric A with rows (N, D): a bag of neighbours for each node.

    On a CPU this took two thirds of the time of a product with a sparse CSR tensor, which is not there on all machines.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(columns, starts, weights)
        return F.embedding_bag(columns, rows, starts, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        columns, starts, weights = ctx.saved_tensors
        return _Propagate.apply(grad.contiguous(), columns, starts, weights), None, None, None


def _normalised(edges: Tensor, kept: Tensor, num_nodes: int) -> Tensor:
    """Return the entry of A at each edge (E,), of the edges that are ``kept`` (E,), 1 or 0."""
    degrees = kept.new_zeros(2, num_nodes).scatter_add_(1, edges, kept[None].expand(2, -1)).sum(0)
    scale = degrees.clamp(min=1).rsqrt()
    return kept * scale[edges[0]] * scale[edges[1]]


@torch.compiler.disable
def _uniform(seed: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    generator = torch.Generator(device).manual_seed(seed % 2**63)
    return torch.rand(shape, generator=generator, device=device)
