"""Raw ids of users and items, and histories of items, as the nodes that an encoder was trained on."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslcli.data.interactions.ids import NAME, Ids
from sslcli.data.interactions.samples import padded
from sslcli.errors import UserError
from sslcli.graph import Lists
from sslcli.run_dir.fitted import Fitted
from sslcli.run_dir.formatting import few
from sslcli.types import Field


def read_ids(samples: Any, name: str, column: Field, fitted: Fitted) -> Tensor:
    """Return the nodes (B,) of users or items by their ids.

    Args:
        samples: an id as the run's data have it, a text or a whole number, or a list of them.
        name: the column's name, ``user`` or ``item``; ids of other columns are numbers as the dataset has them.
        column: the column as the dataset has it.
        fitted: what the run has fitted: its ids.

    Raises:
        UserError: training never saw some of the ids.
    """
    node_of = _nodes(fitted).get(name)
    if node_of is None:
        return torch.as_tensor(samples)
    return torch.tensor(_numbers(_listed(samples), node_of, name), dtype=column.dtype)


def read_histories(samples: Any, name: str, column: Field, fitted: Fitted) -> Tensor:
    """Return histories (B, T) of the nodes of items, padded at the end; of longer ones the last T.

    Args:
        samples: the ids of one history, oldest first, or a list of such lists.
        name: the column's name.
        column: the column as the dataset has it.
        fitted: what the run has fitted: its ids.

    Raises:
        UserError: training never saw some of the items.
    """
    rows = _listed(samples)
    if not rows or not all(isinstance(row, (list, tuple)) for row in rows):
        rows = [rows]
    node_of = _nodes(fitted)["item"]
    flat = _numbers([item for row in rows for item in row], node_of, name)
    start, found = 0, []
    for row in rows:
        found.append(flat[start : start + len(row)])
        start += len(row)
    return padded(Lists.of_rows(found), torch.arange(len(found)), column, 0)


def _nodes(fitted: Fitted) -> Mapping[str, Mapping[str, int]]:
    return _of_file(fitted.files[NAME]) if NAME in fitted.files else {}


@functools.lru_cache(4)  # of the models that are in use
def _of_file(content: bytes) -> Mapping[str, Mapping[str, int]]:
    """Return the node of each user and of each item by its id."""
    ids = Ids.of_file(content)
    items = {item: number + len(ids.users) for item, number in ids.number_of_item.items()}
    return {"user": ids.number_of_user, "item": items}


def _listed(samples: Any) -> list[Any]:
    """Return samples as a list; one text or number is a list of one."""
    if isinstance(samples, str) or not hasattr(samples, "__len__"):
        return [samples]
    return samples.tolist() if hasattr(samples, "tolist") else list(samples)


def _numbers(samples: Sequence[Any], node_of: Mapping[str, int], name: str) -> list[int]:
    texts = [str(int(each)) if isinstance(each, numbers.Integral) else str(each) for each in samples]
    unknown = [repr(text) for text in dict.fromkeys(texts) if text not in node_of]
    if unknown:
        raise UserError(
            f"{name}: training never saw {len(unknown):,} of these ids{few(unknown)}. It knows {len(node_of):,}, "
            f"such as {next(iter(node_of))!r}."
        )
    return [node_of[text] for text in texts]
