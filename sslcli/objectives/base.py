"""What an objective is: one function per sample, one function per batch, and the step's hooks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from sslcli.errors import UserError
from sslcli.features import Features
from sslcli.randomness import Randomness
from sslcli.types import Loss, Reconstruction, View


class Objective(nn.Module):
    """What a run descends; built with the encoder as its positional argument.

    ``project`` reduces everything that does not couple samples, ``loss`` sees the projections of the
    whole global batch. Between them the engine gathers micro-batches (and ranks), so that every layout
    of the same batch gives the same loss and the same gradient.
    """

    num_views: int = 2  # how many full-size views it reads
    takes_local: bool = False  # whether it reads small views, too, where the pipeline makes them (multi-crop)
    num_local: int = 0  # how many small views follow the full-size ones; ``expect_local`` sets it
    needs_target: bool = False  # whether it reads the views' targets
    couples_batch: bool = False  # whether a sample's loss depends on the other samples (needs at least two)
    needs_teacher: bool = False  # whether it contrasts with a momentum copy of the encoder
    label: str | None = None  # the name of the label column that it reads; its results are marked
    terms: tuple[str, ...] = ()  # the names of the loss's summands, where it has several

    def check(self, num_samples: int, micro_batch: int) -> None:
        """Raise ValueError, before training, for sizes of dataset or micro-batch that it cannot work with."""

    def expect_local(self, num_local: int) -> None:
        """Say how many small views will follow the full-size ones, before anything is projected.

        Raises:
            UserError: there are some, and it has no rule for them.
        """
        if num_local and not self.takes_local:
            raise UserError(
                f"views.num_local={num_local}: {type(self).__name__} as configured reads full-size views only. "
                "Set views.num_local=0, or use infonce (form nt_xent or cross_view), moco, byol or simsiam."
            )
        self.num_local = num_local

    def before_step(self, progress: float) -> None:
        """Called before each step with the share of training done, for schedules."""

    def project(self, features: Features) -> dict[str, Tensor]:
        """Float32 tensors with one row a sample, nothing larger than O(D) each."""
        raise NotImplementedError

    def loss(self, outputs: Mapping[str, Tensor]) -> Loss:
        """The loss of the whole global batch from its rows, in the order of the batch."""
        raise NotImplementedError

    def after_step(self, outputs: Mapping[str, Tensor]) -> None:
        """Called after a weight update (not one that the fp16 scaler skipped), for queues and centres."""

    def hidden(self, view: View, randomness: Randomness, i: int) -> Tensor | None:
        """The pixels (B, H, W) of view ``i`` that it hides in this step, True where hidden; None if it hides none."""
        return None

    def reconstruction(self, features: Features, i: int) -> Reconstruction | None:
        """What it makes of the pixels that it hides in view ``i``; None if it reconstructs none."""
        return None

    def chance(self, batch_size: int) -> float | None:
        """The loss of an encoder that knows nothing, where that has a closed form."""
        return None
