"""Texts in Python as the ids that an encoder was trained on, by the tokenizer of its run."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from sslcli.data.text.vocabulary import NAME, Vocabulary
from sslcli.errors import UserError
from sslcli.run_dir.fitted import Fitted
from sslcli.types import Field


def read_texts(samples: Any, name: str, column: Field, fitted: Fitted) -> Tensor:
    """Return the ids (B, T) of texts, cut at the length of the run's data and as wide as the longest needs.

    Args:
        samples: a text, or a list of texts; ids (B, T) in an array or in lists are taken as they are.
        name: the column's name.
        column: the column as the dataset has it.
        fitted: what the run has fitted: its tokenizer.

    Raises:
        UserError: a sample is no text, or the list is empty; the run has no tokenizer.
    """
    texts = [samples] if isinstance(samples, str) else samples
    if not isinstance(texts, (list, tuple)) or not any(isinstance(text, str) for text in texts):
        if not len(texts):
            raise UserError("no texts: the list is empty")
        return torch.as_tensor(samples)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"text {number}: a {type(text).__name__}; give a text, or a list of texts")
    if NAME not in fitted.files:
        raise UserError(f"{name}: this run has no {NAME}, so it reads ids (B, T) and no texts.")
    ids = _vocabulary(fitted.files[NAME]).padded(texts, column.shape[0])
    return ids[:, : column.width_of(ids)]


@functools.lru_cache(4)  # of the models that are in use; a tokenizer takes a moment to read
def _vocabulary(content: bytes) -> Vocabulary:
    return Vocabulary(content)
