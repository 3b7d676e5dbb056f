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
        has_parts: whether the rows say to which part they belong.
        fraction: the fraction of the training rows that is held out by a hash of the text; 0 for none.
    """

    has_parts: bool
    fraction: float

    @classmethod
    def of(cls, source: Source, holdout: float | None) -> Split:
        """Return the split of a source; ``holdout`` is as in ``Texts``.

        Raises:
            UserError: ``holdout`` is not a fraction.
        """
        if holdout is not None and not 0 <= holdout < 1:
            raise UserError(f"dataset.holdout: {holdout} is not a fraction; give a number from 0 to below 1.")
        default = 0.0 if source.has_parts else 0.2 if source.has_labels else 0.05
        return cls(source.has_parts, default if holdout is None else holdout)

    def part_of(self, row: Row) -> int:
        """Return ``TRAIN`` or what ``settled`` needs to know of a row."""
        if row.part in _PARTS:
            return _PARTS[row.part]
        return _HASHED if self.fraction and hash_of(row.text) < self.fraction else TRAIN

    def settled(self, parts: np.ndarray) -> np.ndarray:
        """Return ``TRAIN``, ``HELD_OUT`` or ``LEFT_OUT`` (N,) of what ``part_of`` returned.

        The test part is held out, or the validation part if there is no test part; with a fraction, neither is used.

        Raises:
            UserError: all rows belong to one part.
        """
        queries = _HASHED if self.fraction else _TEST if (parts == _TEST).any() else _VALIDATION
        settled = np.full(len(parts), LEFT_OUT, np.uint8)
        settled[parts == TRAIN] = TRAIN
        settled[parts == queries] = HELD_OUT
        if not (settled == TRAIN).any():
            raise UserError("dataset: no text is left for training; look at dataset.split and dataset.holdout.")
        return settled


def hash_of(text: str) -> float:
    """Return a number in [0, 1) that depends on the text only, without the blanks around it."""
    digest = hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
