"""Data classes that several packages share: column descriptions, views, encodings, losses, devices."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from sslcli.errors import UserError, suggest


@dataclass(frozen=True)
class Field:
    """The description of one column of a dataset; shapes are those of one sample."""

    shape: tuple[int, ...]  # image (C, H, W), token ids (T,), a single id ()
    vocab: int = 0  # number of ids; 0 means continuous data
    mean: tuple[float, ...] = ()  # per channel, of pixels in [0, 1] or of the raw numbers
    std: tuple[float, ...] = ()


class Spec(dict[str, Field]):
    """The descriptions of a dataset's columns by name."""

    def __missing__(self, name: str) -> Field:
        raise UserError(f"The dataset has no column '{name}'. {suggest(name, self)}")

    def to_plain(self) -> dict[str, dict[str, Any]]:
        """Convert to dicts, lists and numbers, for a checkpoint."""
        return {name: asdict(field) for name, field in self.items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Mapping[str, Any]]) -> Spec:
        """Convert back from what ``to_plain`` returned."""
        return cls({name: Field(**{key: _tuple(value) for key, value in f.items()}) for name, f in plain.items()})

    def check_readable(self, name: str, wanted: Spec) -> None:
        """Check that an encoder that was built for the columns ``wanted`` can read the column ``name`` of these data.

        Raises:
            UserError: it cannot; the message gives both shapes.
        """
        want, have = wanted[name], self[name]
        if len(want.shape) == 3:  # images, which the views resize
            fits = len(have.shape) == 3 and have.shape[0] == want.shape[0]
        else:
            fits = len(have.shape) == len(want.shape) and (bool(want.vocab) or have.shape == want.shape)
        if not fits or bool(have.vocab) != bool(want.vocab) or have.vocab > want.vocab:
            needs, has = (f"shape {list(f.shape)}" + f" with {f.vocab} ids" * bool(f.vocab) for f in (want, have))
            raise UserError(f"dataset: the encoder reads '{name}' of {needs}, and these data have {has}.")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass
class View:
    """One view of every sample of a batch: what an encoder reads."""

    x: Tensor  # (B, ...) encoder input
    field: str  # name of the column that it was made from
    valid: Tensor | None = None  # (B, T) bool, False marks padding
    target: Tensor | None = None  # (B, ...) the same crop without photometric augmentation, normalised

    def rows(self, which: Tensor | slice) -> View:
        """Return the view of the samples ``which`` only."""
        valid, target = (None if part is None else part[which] for part in (self.valid, self.target))
        return View(self.x[which], self.field, valid, target)


class Crops(Protocol):
    """The random crops of one batch, for a dataset that cuts them out of its full images itself."""

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each view, in pixels."""

    def windows(self, row: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """Top, left, height and width of each view's window in the image of ``height`` x ``width`` at ``row``."""


@dataclass
class Encoded:
    """The output of an encoder for one view."""

    tokens: Tensor  # (B, T, token_dim), a CNN's feature map in row-major order
    pooled: Tensor  # (B, dim)
    valid: Tensor | None = None  # (B, T) bool, False marks padding


@dataclass
class Reconstruction:
    """A masked objective's prediction of the hidden pixels and its target, in the units that its loss compares."""

    prediction: Tensor  # (B, C, H, W) float32; meaningful in hidden pixels only
    target: Tensor  # (B, C, H, W) float32
    hidden: Tensor  # (B, H, W) bool, True where the encoder's input was masked
    relative: str | None = None  # region of a second normalisation of the target, for captions; None: no second one


def scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """Return ``value`` as a detached scalar, a number on the device of ``like`` without a copy from the host."""
    return value.detach() if isinstance(value, Tensor) else like.detach().new_full((), value)


@dataclass
class Loss:
    """The scalar to minimise, and the named parts that are logged with it."""

    total: Tensor  # scalar with a gradient
    parts: Mapping[str, Tensor]  # detached scalars
    chance: float | Tensor | None = None  # the loss of an uninformative encoder, where it is known
    terms: Mapping[str, Tensor] = field(default_factory=dict)  # the summands of total, with gradients, if several


@dataclass(frozen=True)
class Compute:
    """A device and the precision of the encoder's and the heads' arithmetic on it."""

    device: torch.device
    dtype: torch.dtype  # float32, bfloat16 or float16; weights and losses stay float32

    def autocast(self) -> AbstractContextManager[None]:
        """The mixed-precision region for forward passes."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @property
    def precision(self) -> str:
        """The name of the precision on the command line."""
        return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]

    @property
    def name(self) -> str:
        """The name of the hardware, for people."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} {platform.machine()}"
