"""Data classes that several packages share: column descriptions, views, encodings, losses, devices."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from sslcli.errors import UserError, suggest

Kind = Literal["image", "tokens", "id", "vector"]
Similarity = Literal["cosine", "dot"]
WIDTHS = 16  # batches of texts are a multiple of this wide: kernels are made for it, and a compiled encoder meets few
_NUM_AXES = {"image": 3, "tokens": 1, "id": 0}  # of one sample; a vector may have any number


@dataclass(frozen=True)
class Field:
    """The description of one column of a dataset; the shape is that of one sample.

    Raises:
        ValueError: the values contradict each other; the message says which.
    """

    kind: Kind  # what the numbers are; nothing is ever guessed from the shape
    shape: tuple[int, ...]  # image (C, H, W), tokens (T,), id (), vector usually (D,)
    dtype: torch.dtype  # of the column as ``fetch`` returns it
    vocab: int = 0  # tokens and id: number of ids, from 0 to vocab - 1
    pad: int | None = None  # tokens: the id that fills short texts up; None: all texts have T tokens
    mask: int | None = None  # tokens: the id that hides a token
    special: tuple[int, ...] = ()  # tokens: ids that stand for no word, such as those of begin and end; never hidden
    mean: tuple[float, ...] = ()  # per channel, of pixels in [0, 1] (``is_pixels``), else of the numbers as they are
    std: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()  # of an image: the deeper integers in its files that became 0 and 255

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r} must be one of {', '.join(get_args(Kind))}")
        if not isinstance(self.dtype, torch.dtype):
            raise ValueError(f"dtype={self.dtype!r} must be a dtype of torch, such as torch.uint8")
        if len(self.shape) != _NUM_AXES.get(self.kind, len(self.shape)):
            raise ValueError(f"kind={self.kind} has {_NUM_AXES[self.kind]} axes a sample, and shape={self.shape}")
        if self.is_ids != bool(self.vocab):
            raise ValueError(f"kind={self.kind} and vocab={self.vocab}: tokens and ids have a vocab, others have none")
        if self.is_ids and (self.dtype.is_floating_point or self.dtype == torch.bool):
            raise ValueError(f"kind={self.kind} has whole numbers, and dtype={name_of(self.dtype)}")
        ids = [("pad", self.pad), ("mask", self.mask), *(("special", value) for value in self.special)]
        for name, value in ids:
            if value is not None and not (self.kind == "tokens" and 0 <= value < self.vocab):
                raise ValueError(f"{name}={value} must be an id of tokens, from 0 to below vocab={self.vocab}")

    @property
    def is_ids(self) -> bool:
        """Whether the numbers are names, so that nothing can be computed from them but a look-up in a table."""
        return self.kind in ("tokens", "id")

    @property
    def is_pixels(self) -> bool:
        """Whether this is an image of uint8 or uint16, which views scale to [0, 1]; others are data as they are."""
        return self.kind == "image" and self.dtype in (torch.uint8, torch.uint16)

    @property
    def num_bytes(self) -> int:
        """The bytes of one sample."""
        return math.prod(self.shape) * self.dtype.itemsize

    def words(self, ids: Tensor) -> Tensor:
        """Return bool like ``ids`` of tokens, True where an id stands for a word: none of pad, mask and special."""
        found = torch.ones_like(ids, dtype=torch.bool)
        for number in (self.pad, self.mask, *self.special):
            if number is not None:
                found &= ids != number
        return found

    def width_of(self, ids: Tensor) -> int:
        """Return how wide a batch of tokens (B, T) on the host needs to be: its longest text, rounded up to 16."""
        return self.rounded(int(lengths(ids, self.pad).max()) if len(ids) else 0)

    def rounded(self, longest: int) -> int:
        """Return a width for texts of up to ``longest`` tokens: a multiple of 16, at most the field's own width."""
        return min(-(-max(longest, 1) // WIDTHS) * WIDTHS, self.shape[0])

    def __str__(self) -> str:
        ids = f" of {self.vocab:,} ids" if self.is_ids else ""
        return f"{self.kind}{ids} of shape {list(self.shape)} and dtype {name_of(self.dtype)}"


def lengths(ids: Tensor, pad: int | None) -> Tensor:
    """Return the number of tokens (N,) of each text in ids (N, T), up to its last one that is no padding."""
    places = torch.arange(1, ids.shape[1] + 1, device=ids.device)
    return places[-1].expand(len(ids)) if pad is None else torch.where(ids != pad, places, 0).amax(1)


def name_of(dtype: torch.dtype) -> str:
    """Return the short name of a dtype, such as ``uint8``."""
    return str(dtype).removeprefix("torch.")


class Spec(dict[str, Field]):
    """The descriptions of a dataset's columns by name.

    Attributes:
        facts: tensors that were fitted on the training data, such as the popularity of items; usually none.
    """

    def __init__(
        self, fields: Mapping[str, Field] | None = None, /, facts: Mapping[str, Tensor] | None = None, **more: Field
    ) -> None:
        super().__init__(fields or {}, **more)
        self.facts: Mapping[str, Tensor] = dict(facts or {})

    def __missing__(self, name: str) -> Field:
        raise UserError(f"The dataset has no column '{name}'. {suggest(name, self)}")

    def having(self, name: str, field: Field) -> Spec:
        """Return a copy in which the column ``name`` is ``field``."""
        return Spec({**self, name: field}, facts=self.facts)

    def to_plain(self) -> dict[str, dict[str, Any]]:
        """Convert the fields to dicts, lists, numbers and texts, for a checkpoint."""
        return {name: {**asdict(field), "dtype": name_of(field.dtype)} for name, field in self.items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Tensor] | None = None) -> Spec:
        """Convert back from what ``to_plain`` returned; facts are kept elsewhere."""
        return cls({name: _field(values) for name, values in plain.items()}, facts)

    def check_readable(self, name: str, wanted: Spec) -> None:
        """Check that an encoder that was built for the columns ``wanted`` can read the column ``name`` of these data.

        Raises:
            UserError: it cannot; the message gives both columns.
        """
        want, have = wanted[name], self[name]
        fits = have.kind == want.kind and have.vocab <= want.vocab
        if want.kind in ("image", "vector"):
            axes = 1 if want.kind == "image" else None  # the views resize images
            fits = fits and have.shape[:axes] == want.shape[:axes]
        if not fits:
            raise UserError(f"dataset: the encoder reads '{name}' as {want}, and these data have {have}.")


def _field(plain: Mapping[str, Any]) -> Field:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    return Field(**{**values, "dtype": getattr(torch, plain["dtype"])})


@dataclass
class View:
    """One view of every sample of a batch: what an encoder reads."""

    x: Tensor  # (B, ...) encoder input
    field: str  # name of the column that it was made from
    valid: Tensor | None = None  # (B, T) bool, False marks padding
    target: Tensor | None = None  # (B, ...) the same crop without photometric augmentation, normalised
    noise: int | None = None  # seed of what an encoder of a graph changes in all of it for this view; None: nothing

    def rows(self, which: Tensor | slice) -> View:
        """Return the view of the samples ``which`` only."""
        valid, target = (None if part is None else part[which] for part in (self.valid, self.target))
        return View(self.x[which], self.field, valid, target, self.noise)


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

    def token(self, number: int) -> Tensor:
        """Return one token (B, token_dim) of every sample."""
        return self.tokens[:, number]

    def chunks(self, parts: int) -> list[Encoded]:
        """Return the encodings of ``parts`` views that went through the encoder as one batch."""
        valid = [None] * parts if self.valid is None else self.valid.chunk(parts)
        return [Encoded(*rows) for rows in zip(self.tokens.chunk(parts), self.pooled.chunk(parts), valid)]


@dataclass
class Reconstruction:
    """A masked objective's prediction of the hidden pixels and its target, in the units that its loss compares."""

    prediction: Tensor  # (B, C, H, W) float32; meaningful in hidden pixels only
    target: Tensor  # (B, C, H, W) float32
    hidden: Tensor  # (B, H, W) bool, True where the encoder's input was masked
    relative: str | None = None  # region of a second normalisation of the target, for captions; None: no second one


@dataclass
class Guesses:
    """A masked objective's predictions of the hidden words of texts, from the words around them."""

    ids: Tensor  # (B, T) the texts
    hidden: Tensor  # (B, T) bool, True where a word is to be predicted
    guess: Tensor  # (B, T) the most probable id; meaningful at hidden words only
    probability: Tensor  # (B, T) float32, of the guess


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
