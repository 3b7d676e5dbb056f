"""Converts the classes that files give, as numbers or as names, to labels."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import any_known

_NUMBER = re.compile(rb"-?\d{1,6}")


def labels_of(texts: np.ndarray) -> Tensor | None:
    """Convert the classes of N samples, given as bytes, to labels (N,) int64.

    If all are numbers, these are the labels; otherwise a label is the rank of the name among the sorted names. An
    empty text or a negative number becomes -1. If all labels are -1, the result is None. Numbers of more than six
    digits count as names.
    """
    unique, inverse = np.unique(texts, return_inverse=True)
    words = [word for word in unique.tolist() if word]
    if all(map(_NUMBER.fullmatch, words)):
        numbers = [max(int(word), -1) for word in words]
    else:
        numbers = list(range(len(words)))
    missing = [-1] * (len(unique) - len(words))  # the empty text is sorted before all others
    labels = torch.from_numpy(np.array(missing + numbers, np.int64)[inverse])
    return any_known(labels)
