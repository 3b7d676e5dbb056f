"""Raw samples in Python, such as pictures or ids, as the column of numbers that an encoder was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from sslcli.data.interactions.ids import NAME as IDS
from sslcli.pretrained.pictures import read_pictures
from sslcli.pretrained.rows import read_rows
from sslcli.pretrained.texts import read_texts
from sslcli.pretrained.users_items import read_histories, read_ids
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


def _read_tokens(samples: Any, name: str, column: Field, fitted: Fitted) -> Tensor:
    """Return histories of a run that knows ids of items, and texts of one that has a tokenizer."""
    return (read_histories if IDS in fitted.files else read_texts)(samples, name, column, fitted)


READERS: Mapping[Kind, Reader] = {"image": read_pictures, "tokens": _read_tokens, "id": read_ids, "vector": read_rows}
