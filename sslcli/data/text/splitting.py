"""Which texts are held out: those of a test part, or those whose hash is small, so that duplicates stay together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from sslcli.data.split_names import TEST, VALIDATION
from sslcli.data.text.rows import Row, Source
from sslcli.errors import UserError

TRAIN, HELD_OUT, LEFT_OUT = 0, 1, 2
_TEST, _VALIDATION, _HASHED = 3, 4, 5  # of rows, before all rows are known
_PARTS = {TEST: _TEST, VALIDATION: _VALIDATION}


@dataclass(frozen=True)
class Split:
    """How texts are split; a text's part depends on nothing but the text and its own row.

    Attributes:
        by_parts: whether the rows' own parts choose what is held out; otherwise test and validation are not used.
        fraction: the fraction of the training rows that is held out by a hash of the text.
    """

    by_parts: bool
    fraction: float

    @classmethod
    def of(cls, source: Source, holdout: float | None) -> Split:
        """Return the split of a source; ``holdout`` is as in ``Texts``.

        Raises:
            UserError: ``holdout`` is not a fraction.
        """
        if holdout is not None and not 0 <= holdout < 1:
            raise UserError(f"dataset.holdout: {holdout} is not a fraction; give a number from 0 to below 1.")
        if holdout is None and source.has_parts:
            return cls(True, 0.0)
        default = 0.2 if source.has_labels else 0.05
        return cls(False, default if holdout is None else holdout)

    def part_of(self, row: Row) -> int:
        """Return ``TRAIN`` or what ``settled`` needs to know of a row."""
        if row.part in _PARTS:
            return _PARTS[row.part]
        return _HASHED if self.fraction and hash_of(row.text) < self.fraction else TRAIN

    def settled(self, parts: np.ndarray) -> np.ndarray:
        """Return ``TRAIN``, ``HELD_OUT`` or ``LEFT_OUT`` (N,) of what ``part_of`` returned.

        Raises:
            UserError: no row is left for training, or the rows' own parts leave none to hold out.
        """
        own = _TEST if (parts == _TEST).any() else _VALIDATION  # validation where there is no test part
        queries = own if self.by_parts else _HASHED
        settled = np.full(len(parts), LEFT_OUT, np.uint8)
        settled[parts == TRAIN] = TRAIN
        settled[parts == queries] = HELD_OUT
        if not (settled == TRAIN).any():
            raise UserError(
                "dataset.split: no text is left for training; dataset.split=none splits by a hash of the text."
            )
        if self.by_parts and not (settled == HELD_OUT).any():
            raise UserError(
                "dataset.split: no text belongs to test or validation; dataset.split=none splits by a hash of the text."
            )
        return settled


def hash_of(text: str) -> float:
    """Return a number in [0, 1) that depends on the text only, without the blanks around it."""
    digest = hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
