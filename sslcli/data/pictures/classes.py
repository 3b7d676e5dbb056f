"""Classes as files name them: by numbers or by words."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import any_known

_NUMBER = re.compile(rb"-?\d{1,6}")


def labels_of(texts: np.ndarray) -> Tensor | None:
    """Labels (N,) int64 of what stands beside N samples, as bytes.

    Numbers are taken as they are, words by their order. Where there is nothing, or a negative number, the label is
    -1; where that is so everywhere, there are none. Numbers of more than six digits count as words.
    """
    different, which = np.unique(texts, return_inverse=True)
    words = [word for word in different.tolist() if word]
    if all(map(_NUMBER.fullmatch, words)):
        numbers = [max(int(word), -1) for word in words]
    else:
        numbers = list(range(len(words)))
    nothing = [-1] * (len(different) - len(words))  # sorted before all others
    labels = torch.from_numpy(np.array(nothing + numbers, np.int64)[which])
    return any_known(labels)
