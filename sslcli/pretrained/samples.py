"""Raw samples in Python, such as pictures, as the column of numbers that an encoder was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sslcli.pretrained.pictures import read_pictures
from sslcli.pretrained.rows import read_rows
from sslcli.pretrained.texts import read_texts
from sslcli.run_dir.fitted import Fitted
from sslcli.types import Field, Kind

Reader = Callable[[Any, str, Field, Fitted], Tensor]  # samples, the column's name, its field, what the run has fitted


def as_column(samples: Any, name: str, column: Field, fitted: Fitted) -> Tensor:
    """Convert raw samples to the column ``name`` (B, ...), as the run's dataset reads them from its files.

    Args:
        samples: what the reader of the column's kind takes.
        name: the column's name.
        column: the column as the dataset has it.
        fitted: what was fitted on the run's data, such as a tokenizer.

    Raises:
        UserError: the samples are not of this kind.
    """
    return READERS[column.kind](samples, name, column, fitted)


def _numbers(samples: Any, name: str, column: Field, fitted: Fitted) -> Tensor:
    """Return the numbers or ids of a column that are given as the dataset has them."""
    return torch.as_tensor(samples)


READERS: Mapping[Kind, Reader] = {"image": read_pictures, "tokens": read_texts, "id": _numbers, "vector": read_rows}
