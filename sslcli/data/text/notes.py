"""The start lines about texts: what was read, left out, cut, and not known to the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sslcli.data.base import Notes
from sslcli.data.text.rows import Source
from sslcli.data.text.splitting import LEFT_OUT, Split
from sslcli.data.text.vocabulary import Vocabulary

_LEFT_OUT = (("blank", "without a text"), ("blank pair", "without a pair"))
_CHANGED = (
    ("invalid", "with bytes that are no UTF-8, replaced by U+FFFD"),
    ("nul", "with NUL characters, replaced by blanks"),
)


def notes_of(
    source: Source,
    vocabulary: Vocabulary,
    counts: Mapping[str, int],
    length: int,
    split: Split,
    parts: np.ndarray,
    *,
    is_own: bool,
) -> Notes:
    """Return the lines.

    Args:
        source: the rows.
        vocabulary: the tokenizer.
        counts: what was counted when the rows were read and tokenised.
        length: largest number of tokens of a text.
        split: how the rows are split.
        parts: the part of each row that has a text, (N,).
        is_own: whether the tokenizer was made for these data, and not for those of a trained run.
    """
    files = len(source.files)
    rows = [f"{counts['rows']:,} of {files:,} file{'s' * (files != 1)}"]
    rows += [f"{counts[key]:,} {words} left out" for key, words in _LEFT_OUT if counts.get(key)]
    rows += [f"{counts[key]:,} {words}" for key, words in _CHANGED if counts.get(key)]
    unused = int((parts == LEFT_OUT).sum())
    if unused:
        rows.append(f"{unused:,} of other parts left out")
    texts = len(parts) * len(source.columns)
    cut = counts.get("cut", 0)
    tokens = [f"{counts['tokens'] / texts:.1f} a text of at most {length}"]
    tokens.append(f"{cut:,} of {texts:,} texts cut" if cut else "no text cut")
    if vocabulary.unknown is not None:
        tokens.append(f"{counts['unknown'] / max(counts['tokens'], 1):.2%} unknown")
    if vocabulary.mask is None:
        tokens.append("no mask token, so that no objective can hide tokens")
    whose = "made for these data" if is_own else "the run's own"
    found = [
        ("rows", ", ".join(rows)),
        ("tokens", f"{', '.join(tokens)}; a vocabulary of {vocabulary.size:,}, {whose}"),
    ]
    if split.fraction:
        found.append(("split", f"{split.fraction:.0%} of the texts are held out by their hash, equal texts together"))
    return tuple(found)


def counted(counts: Mapping[str, int], length: int) -> str:
    """Return what was changed in texts or left out of them, with its number; "" for nothing."""
    words = (
        *((key, f"rows {what} left out") for key, what in _LEFT_OUT),
        *((key, f"rows {what}") for key, what in _CHANGED),
        ("cut", f"texts cut at {length} tokens"),
        ("unknown", f"of {counts.get('tokens', 0):,} tokens unknown"),
    )
    return ", ".join(f"{counts[key]:,} {what}" for key, what in words if counts.get(key))
