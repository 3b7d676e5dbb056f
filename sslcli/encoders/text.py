"""What the encoders of text share: which columns they read, how a token is hidden, and how tokens become one vector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.encoders.base import Encoder
from sslcli.errors import UserError
from sslcli.types import Field, Spec, View

_TOGETHER = 32  # texts: enough for matrix products at full speed


class TextEncoder(Encoder):
    """An encoder of token ids. One table of embeddings serves all columns of tokens, such as a text and its title.

    Padding changes nothing: the same texts with more of it have the same tokens, pooled vectors and gradients.

    Attributes:
        num_ids: how many different ids there are.
        max_length: the largest number of tokens of a text.

    Raises:
        ValueError: the dataset has no column of tokens, or several with different vocabularies.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.texts: dict[str, Field] = {name: field for name, field in spec.items() if field.kind == "tokens"}
        if not self.texts:
            raise ValueError(f"{type(self).__name__} reads token ids, and the dataset has none: {', '.join(spec)}")
        sizes = {name: field.vocab for name, field in self.texts.items()}
        if len(set(sizes.values())) > 1:
            each = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
            raise ValueError(f"one table of embeddings reads one vocabulary, and columns have different ones: {each}")
        self.num_ids = next(iter(sizes.values()))
        self.max_length = max(field.shape[0] for field in self.texts.values())
        self.spec = spec
        self.stride = 1

    def grid(self, view: View) -> tuple[int, ...]:
        return tuple(view.x.shape[1:])

    def hidden(self, view: View, mask: Tensor | None) -> Tensor | None:
        """Return where ``mask`` (B, T) hides a word; padding and special ids stay. None if there is no mask.

        Raises:
            ValueError: the view is of a column that this encoder does not read.
        """
        if view.field not in self.texts:
            names = ", ".join(self.texts)
            raise ValueError(f"{type(self).__name__} reads {names}, and a view is of the column '{view.field}'")
        return None if mask is None else mask & self.texts[view.field].words(view.x)

    def ids(self, view: View, hidden: Tensor | None) -> Tensor:
        """Return the ids (B, T) of a view, with the field's id for masks where ``hidden`` (B, T) is True.

        Raises:
            ValueError: the field has no id for masks.
        """
        if hidden is None:
            return view.x
        number = self.texts[view.field].mask
        if number is None:
            raise ValueError(f"the column '{view.field}' has no id that hides a token (Field.mask)")
        return view.x.masked_fill(hidden, number)

    def check_length(self, width: int) -> None:
        """Raise UserError if a text of ``width`` tokens is longer than those of the training data."""
        if width > self.max_length:
            raise UserError(
                f"dataset: a text has {width} tokens, and this encoder reads {self.max_length}. "
                f"Set dataset.length={self.max_length}."
            )


def by_length(
    encode: Callable[[Tensor, Tensor | None], Tensor], ids: Tensor, valid: Tensor | None, together: int = _TOGETHER
) -> Tensor:
    """Return the tokens (B, T, D) of texts, where a CPU encodes short texts apart from long ones.

    A batch is as wide as its longest text, so most of it may be padding, which takes a CPU as long as words do. Sorted
    by length, ``together`` texts at a time are as wide as the longest of these. The batch stays what it is, and tokens
    differ by rounding; those beyond the width of a part are 0. On a GPU all texts are encoded at once: it would have to
    wait for the lengths, and small passes do not fill it.

    Args:
        encode: makes tokens (b, t, D) of ids (b, t) and of what is no padding (b, t).
        ids: (B, T) int64.
        valid: (B, T) bool, True at tokens that are no padding; None if there is none.
        together: texts of a part.
    """
    if valid is None or ids.device.type != "cpu" or torch.compiler.is_compiling() or len(ids) <= together:
        return encode(ids, valid)
    width = (valid * torch.arange(1, ids.shape[1] + 1)).amax(1)
    order = width.argsort(stable=True)
    parts = []
    for rows in order.split(together):
        longest = max(1, int(width[rows[-1]]))
        tokens = encode(ids[rows, :longest], valid[rows, :longest])
        parts.append(F.pad(tokens, (0, 0, 0, ids.shape[1] - longest)))
    return torch.cat(parts)[order.argsort()]


def visible(view: View, hidden: Tensor | None) -> Tensor | None:
    """Return (B, T) bool, True where a token is neither padding nor hidden; None if all tokens are visible."""
    if hidden is None or view.valid is None:
        return view.valid if hidden is None else ~hidden
    return view.valid & ~hidden


def readable(valid: Tensor) -> Tensor:
    """Return (B, T) bool, True at tokens that attention reads: all that are no padding, or the first of an empty text.

    A softmax over nothing would be nan.
    """
    first = torch.arange(valid.shape[1], device=valid.device) == 0
    return valid | (first & ~valid.any(1, keepdim=True))


def mean_of(tokens: Tensor, which: Tensor | None) -> Tensor:
    """Return the float32 mean (B, D) of the tokens (B, T, D) that ``which`` (B, T) marks; 0 where it marks none."""
    if which is None:
        return tokens.float().mean(1)
    weight = which.float()
    total = torch.einsum("btd,bt->bd", tokens.float(), weight)
    return total / weight.sum(1, keepdim=True).clamp(min=1)


def drawn_normal(module: nn.Module, std: float = 0.02) -> None:
    """Draw the weights of linear layers and embeddings as BERT does: normal with ``std``, biases 0, norms 1 and 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
