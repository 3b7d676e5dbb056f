"""Converts the classes that files give, as numbers or as names, to labels and the names of the labels."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import any_known

_NUMBER = re.compile(rb"-?\d+")
Given = tuple[np.ndarray, Sequence[bytes]]  # (N,) bytes, a class for each sample; the names of classes 0, 1, ...


def labels_of(parts: Sequence[Given]) -> tuple[Tensor | None, tuple[str, ...]]:
    """Convert the classes of the samples of some files to labels (N,) int64; return the names of the labels, too.

    A class is a name, also where it is a number: three classes called 7, 123456 and 999999 are the labels 0, 1 and 2.
    Labels follow the order of the numbers if all classes are numbers, else the order of the names. Where a file itself
    names its classes 0, 1, ..., these come first and in this order, so that its numbers are the labels. An empty text
    or a negative number becomes -1. If all labels are -1, the result is None and no names.
    """
    texts, ranks, start = [np.zeros(0, "S1")], [], 0
    for given, names in parts:
        unique, inverse = np.unique(given, return_inverse=True)
        texts.append(np.array([_word(text, names) for text in unique.tolist()], "S"))
        ranks.append(start + inverse)
        start += len(unique)
    words = np.concatenate(texts).tolist()
    known = [*dict.fromkeys(name for _, names in parts for name in names)]
    others = {word for word in words if word}.difference(known)
    numeric = all(map(_NUMBER.fullmatch, others))
    classes = known + sorted(others, key=(lambda word: (int(word), word)) if numeric else None)
    number = {b"": -1, **{word: i for i, word in enumerate(classes)}}
    found = np.array([number[word] for word in words], np.int64)[np.concatenate(ranks)]
    labels = any_known(torch.from_numpy(found))
    return labels, () if labels is None else tuple(word.decode(errors="backslashreplace") for word in classes)


def _word(text: bytes, names: Sequence[bytes]) -> bytes:
    """Return the name of a class: a number counts in ``names``, and is a name itself beyond them; b"" if missing."""
    if not _NUMBER.fullmatch(text):
        return text
    number = int(text)
    if number < 0:
        return b""
    return names[number] if number < len(names) else b"%d" % number
