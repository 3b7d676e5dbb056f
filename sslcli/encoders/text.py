"""What the encoders of text share: which columns they read, how a token is hidden, and how tokens become one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.encoders.base import Encoder
from sslcli.errors import UserError
from sslcli.types import Field, Spec, View


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
