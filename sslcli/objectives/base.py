"""The interface of objectives: one function per sample, one function per batch, and methods called around a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from sslcli.errors import UserError
from sslcli.features import Features
from sslcli.randomness import Randomness
from sslcli.types import Encoded, Guesses, Loss, Reconstruction, Similarity, View


class Objective(nn.Module):
    """The function that a run minimises; it is built with the encoder as its positional argument.

    ``project`` computes everything that does not couple samples; ``loss`` sees the projections of the
    whole global batch. Between them the trainer gathers micro-batches (and ranks), so that every layout
    of the same batch gives the same loss and the same gradient.
    """

    reads: tuple[int, ...] = (0, 1)  # the numbers of the full-size views that it reads; settled when it is built
    takes_local: bool = False  # whether it reads small views, too, where the pipeline makes them (multi-crop)
    num_local: int = 0  # how many small views follow the full-size ones; ``expect_local`` sets it
    needs_target: bool = False  # whether it reads the views' targets
    couples_batch: bool = False  # whether a sample's loss depends on the other samples (needs at least two)
    needs_teacher: bool = False  # whether it compares with a momentum copy of the encoder
    label: str | None = None  # the label column that it reads; results of such runs say that labels were used
    terms: tuple[str, ...] = ()  # the names of the loss terms, where there are several
    similarity: Similarity = "cosine"  # how the encoder's pooled vectors are to be compared: as in the loss

    def check(self, num_samples: int, micro_batch: int) -> None:
        """Raise ValueError, before training, if the objective cannot use this size of dataset or micro-batch."""

    def expect_local(self, num_local: int) -> None:
        """Set the number of small views that follow the full-size ones; called before anything is projected.

        Raises:
            UserError: there are small views, and this objective cannot use them.
        """
        if num_local and not self.takes_local:
            raise UserError(
                f"views.num_local={num_local}: {type(self).__name__} as configured reads full-size views only. "
                "Set views.num_local=0, or use infonce (form nt_xent or cross_view), moco, byol or simsiam."
            )
        self.num_local = num_local

    def before_step(self, progress: float) -> None:
        """Update scheduled values; called before each step with the share of training done, in [0, 1]."""

    def project(self, features: Features) -> dict[str, Tensor]:
        """Return float32 tensors with one row per sample, each row no larger than O(D)."""
        raise NotImplementedError

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        """Return the loss of the whole global batch from its rows, in the order of the batch."""
        raise NotImplementedError

    def after_step(self, outputs: Mapping[str, Tensor]) -> None:
        """Update queues and averages; called after each weight update, except those that the fp16 scaler skipped."""

    def hidden(self, view: View, randomness: Randomness, i: int) -> Tensor | None:
        """Return what of view ``i`` is hidden, True at pixels (B, H, W) or words (B, T); None if nothing is."""
        return None

    def reconstruction(self, features: Features, i: int) -> Reconstruction | None:
        """Return the prediction for the pixels that are hidden in view ``i``; None if nothing is reconstructed."""
        return None

    def guesses(self, features: Features, i: int) -> Guesses | None:
        """Return the prediction of the words that are hidden in view ``i``; None if no words are predicted."""
        return None

    def chance(self, batch_size: int) -> float | None:
        """Return the loss of an uninformative encoder (chance level), where it has a closed form."""
        return None


@runtime_checkable
class Masking(Protocol):
    """An objective that hides parts of views, in a pass that others can share (``joint share=masked``)."""

    reads: tuple[int, ...]

    def masked_pass(self, features: Features, i: int) -> Encoded:
        """Return the encoding of view ``i`` with what is hidden in this step; every call returns the same."""


def scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """Return ``value`` as a detached scalar, a number on the device of ``like`` without a copy from the host."""
    return value.detach() if isinstance(value, Tensor) else like.detach().new_full((), value)


def two_views(reads: Sequence[int] | None) -> tuple[int, int]:
    """Return the numbers of the two views that an objective compares: ``reads``, or 0 and 1 if it is None.

    Raises:
        ValueError: they are not two different numbers from 0 on.
    """
    first, second = distinct((0, 1) if reads is None else reads, 2)
    return first, second


def distinct(reads: Sequence[int], count: int | None = None) -> tuple[int, ...]:
    """Return ``reads`` as a tuple, after checking that it is ``count`` different numbers of views, or any if None.

    Raises:
        ValueError: it is not.
    """
    if not reads or len(reads) != (count or len(reads)) or len(set(reads)) != len(reads) or min(reads) < 0:
        wanted = "at least one view" if count is None else f"{count} different views"
        raise ValueError(f"reads={list(reads)} must number {wanted}, from 0 on, such as {list(range(count or 1))}")
    return tuple(reads)
