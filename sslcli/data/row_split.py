"""The held-out part of data without files of their own for it: by the content of rows, or by a column that names it.

The order of rows says nothing: sorted tables are as common as shuffled ones. A hash of what a row holds is the same
wherever the row is, and however often, so that copies of a training sample are never held out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslcli.data.base import Notes
from sslcli.data.split_names import TEST, TRAIN, VALIDATION, named_split
from sslcli.errors import UserError, one_line
from sslcli.randomness import fold, mix

Parts = tuple[np.ndarray, np.ndarray]  # positions of the training rows and of the held-out rows, in the file's order


def split_by_hash(hashes: np.ndarray, holdout: float | None, labelled: np.ndarray) -> tuple[Parts, Notes]:
    """Divide rows by the hash of their content.

    If only some rows have labels, those are held out, because probes need labels, and their copies with them.

    Args:
        hashes: (N,) uint64, equal for rows of equal content.
        holdout: the fraction to hold out; None is 0.2 if there are labels, else 0.05.
        labelled: (N,) bool, whether a row has a label.

    Raises:
        UserError: ``holdout`` is not a fraction.
    """
    has_labels = bool(labelled.any())
    share = (0.2 if has_labels else 0.05) if holdout is None else holdout
    if not 0 <= share < 1:
        raise UserError(f"dataset.holdout: {share} is not a fraction; give a number from 0 to below 1.")
    drawn = (mix(hashes ^ np.uint64(fold("held out"))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    chosen = drawn < share
    if has_labels:
        chosen = np.isin(hashes, np.unique(hashes[chosen & labelled]))
    copies = len(hashes) - len(np.unique(hashes))
    which = "labelled rows" if has_labels and not labelled.all() else "rows"
    text = f"{share:.0%} of the {which} are held out by their hash"
    notes = (("split", text + (f"; {copies:,} rows are copies, on the side of their first" if copies else "")),)
    return (np.flatnonzero(~chosen), np.flatnonzero(chosen)), notes


def split_by_column(values: Sequence[str | None], name: str) -> tuple[dict[str, np.ndarray], Notes]:
    """Return the positions of the rows of ``train``, ``validation`` and ``test``, which a column names.

    Raises:
        UserError: a row has another value, or no row is for training.
    """
    words = [named_split(value or "") for value in values]
    if None in words:
        i = words.index(None)
        given = "nothing" if values[i] is None else f"'{one_line(str(values[i]))[:40]}'"
        raise UserError(
            f"dataset.split: the column '{name}' has {given} in row {i}. It takes train, validation and test."
        )
    parts = {word: np.flatnonzero(np.array(words) == word) for word in (TRAIN, VALIDATION, TEST)}
    if not len(parts[TRAIN]):
        raise UserError(f"dataset.split: the column '{name}' names no row for training.")
    counts = ", ".join(f"{word} {len(rows):,}" for word, rows in parts.items() if len(rows))
    return parts, (("split", f"by the column '{name}': {counts}"),)


def held_out_by_name(parts: dict[str, np.ndarray], labelled: np.ndarray) -> str:
    """Return which part probes query: test, or validation if there are no test rows or only these have labels."""
    with_labels = next((name for name in (TEST, VALIDATION) if labelled[parts[name]].any()), None)
    return with_labels or (TEST if len(parts[TEST]) else VALIDATION)
