"""Pictures of a page: grids under their columns' names, neighbours beside their queries, and their sizes in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sslcli.data.pictures.encode import EXACT, address
from sslcli.report.visuals import Nearest, Neighbours


@dataclass(frozen=True)
class Strip:
    """A grid of pictures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]  # ``src`` of each picture
    size: str  # see ``enlarged``


def strip(columns: Mapping[str, Tensor]) -> Strip:
    """Convert columns of pictures (B, C, H, W) to rows of data URLs."""
    rows = [[address(picture) for picture in row] for row in zip(*columns.values())]
    return Strip(list(columns), rows, enlarged(columns))


def enlarged(columns: Mapping[str, Tensor]) -> str:
    """Return the width and height of the pictures (B, C, H, W) that a page enlarges: ``28 x 28 pixels, enlarged``.

    Columns are named where not all have this size. Without small pictures the text is empty.
    """
    sizes: dict[str, list[str]] = {}
    for name, pictures in columns.items():
        height, width = pictures.shape[2:]
        if max(height, width) <= EXACT:
            sizes.setdefault(f"{width} x {height}", []).append(name)
    if not sizes:
        return ""
    if len(sizes) == 1 and len(next(iter(sizes.values()))) == len(columns):
        return f"{next(iter(sizes))} pixels, enlarged"
    return "; ".join(f"{', '.join(names)}: {size}" for size, names in sizes.items()) + " pixels, enlarged"


def neighbour_rows(pictures: Neighbours) -> Iterator[dict[str, Any]]:
    """Yield each query with its neighbours: data URL, similarity, and whether the label is the same."""
    nearest = [[address(picture) for picture in row] for row in pictures.nearest]
    yield from rows_of([address(query) for query in pictures.queries], nearest, pictures.found)


def rows_of(queries: Sequence[str], nearest: Sequence[Sequence[str]], found: Nearest) -> Iterator[dict[str, Any]]:
    """Yield each query with its neighbours, their similarities, and whether their labels are the query's."""
    for i, (query, others) in enumerate(zip(queries, nearest)):
        same: list[bool | None] = [None] * len(others) if found.same is None else found.same[i].tolist()
        cosines = [f"{value:.3f}" for value in found.similarity[i].tolist()]
        yield {"query": query, "nearest": list(zip(others, cosines, same))}
