"""A tokenizer of the library ``tokenizers``: its ``tokenizer.json``, checked, with the meaning of its special ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcli.errors import UserError, described
from sslcli.types import Field

NAME = "tokenizer.json"  # the file in a run
_ROLES = {"pad": re.compile(r"\W*pad\W*", re.I), "mask": re.compile(r"\W*mask\W*", re.I)}  # [PAD], <pad>, <|pad|>
_BEGINS = ("\u0120", "\u2581")  # what begins the first token of a word: a blank in byte-level BPE, in SentencePiece
_UNKNOWN = re.compile(r"\W*unk(nown)?\W*", re.I)


def library() -> Any:
    """Return the module ``tokenizers``.

    Raises:
        UserError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError:
        raise UserError("dataset: texts need the library tokenizers: pip install 'sslcli[text]'") from None
    return tokenizers


class Vocabulary:
    """A tokenizer with the meaning of its special ids.

    Attributes:
        size: ids are from 0 to below this.
        pad: the id that fills short texts up.
        mask: the id that hides a token; None if the tokenizer has none.
        unknown: the id of what the tokenizer does not know; None if it knows every text.
        special: ids that stand for no word, such as those of begin and end.

    Args:
        content: a ``tokenizer.json``.
        where: its path, for messages.

    Raises:
        UserError: it cannot be read, or has no token for padding.
    """

    def __init__(self, content: bytes, where: str = NAME) -> None:
        try:
            self.tokenizer = library().Tokenizer.from_str(content.decode())
        except UserError:
            raise
        except Exception as error:  # the library raises Exception itself
            raise UserError(f"dataset.tokenizer: {where} is no tokenizer.json ({described(error)}).") from None
        added = self.tokenizer.get_added_tokens_decoder()
        ids = self.tokenizer.get_vocab(with_added_tokens=True)
        self.size = max(ids.values(), default=-1) + 1
        special = {token.content: number for number, token in added.items() if token.special}
        found = {
            role: next((number for name, number in special.items() if pattern.fullmatch(name)), None)
            for role, pattern in _ROLES.items()
        }
        if found["pad"] is None:
            names = ", ".join(special) or "none"
            raise UserError(
                f"dataset.tokenizer: {where} has no token for padding, such as [PAD]. Its special tokens: {names}."
            )
        self.pad: int = found["pad"]
        self.mask = found["mask"]
        self.unknown = self._unknown(special)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        ends = self.tokenizer.encode("").ids
        self._num_ends = len(ends)
        others = {*special.values(), *ends} - {self.pad, self.mask, self.unknown}
        self.special = tuple(sorted(others))

    def _unknown(self, special: dict[str, int]) -> int | None:
        name = getattr(self.tokenizer.model, "unk_token", None)
        number = self.tokenizer.token_to_id(name) if name else None
        return number if number is not None else next((special[x] for x in special if _UNKNOWN.fullmatch(x)), None)

    def field(self, length: int) -> Field:
        """Return the description of a column of texts of at most ``length`` tokens."""
        return Field("tokens", (length,), torch.int32, self.size, pad=self.pad, mask=self.mask, special=self.special)

    def continues(self) -> Tensor:
        """Return bool (size,), True where a token goes on with the word of the token before it.

        WordPiece marks these pieces (``##``); byte-level BPE and SentencePiece mark the tokens that begin a word.
        """
        tokens = [self.tokenizer.id_to_token(number) or "" for number in range(self.size)]
        prefix = getattr(self.tokenizer.model, "continuing_subword_prefix", None)
        begins = next((mark for mark in _BEGINS if any(token.startswith(mark) for token in tokens)), None)
        if prefix:
            return torch.tensor([token.startswith(prefix) for token in tokens])
        return torch.tensor([begins is not None and not token.startswith(begins) for token in tokens])

    def encode(self, texts: Sequence[str], length: int) -> list[tuple[list[int], bool]]:
        """Return the ids of each text, at most ``length`` with those of begin and end, and whether it was cut.

        Raises:
            UserError: ``length`` has no room for a word beside begin and end.
        """
        if length <= self._num_ends:
            least = self._num_ends + 1
            raise UserError(f"dataset.length={length} is too short beside begin and end; give {least} or more.")
        self.tokenizer.enable_truncation(length)
        return [(found.ids, bool(found.overflowing)) for found in self.tokenizer.encode_batch_fast(list(texts))]

    def padded(self, texts: Sequence[str], length: int) -> Tensor:
        """Return the ids of texts as rows (B, length), filled up with ``pad``."""
        rows = np.full((len(texts), length), self.pad, np.int32)
        for row, (ids, _) in zip(rows, self.encode(texts, length)):
            row[: len(ids)] = ids
        return torch.from_numpy(rows)

    def decode(self, ids: Tensor) -> list[str]:
        """Return the texts that rows of ids (B, T) stand for, without special tokens, as the tokenizer spells them."""
        decoded: list[str] = self.tokenizer.decode_batch(ids.tolist(), skip_special_tokens=True)
        return decoded
