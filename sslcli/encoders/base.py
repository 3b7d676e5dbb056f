"""The interface of encoders."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from sslcli.types import Encoded, Spec, View


class Encoder(nn.Module):
    """Turns a view into tokens and one pooled vector.

    A masked objective chooses where the input is hidden, by a bool mask on ``grid``; the encoder chooses how.
    """

    spec: Spec  # the dataset's columns, with images at the size that this encoder reads
    dim: int  # width of the pooled vector
    token_dim: int  # width of a token; 0 for an encoder without tokens
    stride: int  # input pixels per output token, along each side
    can_drop: bool = False  # whether forward takes visible_only=True, which drops hidden tokens
    at_once: bool = False  # whether all views of a micro-batch are best one batch: their columns are ids of one table

    def expect(self, view: View, field: str) -> None:
        """Raise ValueError if the view is not of the column ``field``, for an encoder that reads no other."""
        if view.field != field:
            raise ValueError(f"{type(self).__name__} reads the column '{field}', and a view is of '{view.field}'")

    @property
    def view_spec(self) -> Spec:
        """The columns at the size of training views, which may be smaller than in ``spec`` (see ConvNetSmall)."""
        return self.spec

    @property
    def patch_embedding(self) -> nn.Module | None:
        """The module that turns images into the first tokens of a transformer, for objectives that freeze it."""
        return None

    def in_words(self, num_micro: int) -> str:
        """Return what the start lines add of this encoder in steps of ``num_micro`` micro-batches; usually nothing."""
        return ""

    def recompute_blocks(self) -> None:
        """Keep no activations inside blocks; the backward pass computes them again, from the same random numbers.

        Raises:
            ValueError: this encoder has no blocks.
        """
        raise ValueError(f"{type(self).__name__} has no blocks that can be computed again")

    def grid(self, view: View) -> tuple[int, ...]:
        """Return the shape of a mask for this view: its patches for a ViT, its pixels for a CNN."""
        raise NotImplementedError

    def forward(self, view: View, mask: Tensor | None = None) -> Encoded:
        """Encode a view (B, ...). ``mask`` (B, *grid) bool is True where the view is hidden.

        ``pooled`` averages the tokens that are visible and valid.
        """
        raise NotImplementedError


@runtime_checkable
class Recommends(Protocol):
    """An encoder whose pooled vectors of users, or of their histories, are compared with vectors of items."""

    def item_vectors(self) -> Tensor:
        """Return the vector (I, dim) of each item of ``Graph.of(spec)``, in the order of their numbers."""
