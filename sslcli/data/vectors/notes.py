"""The start lines about a table: its columns, and the cells that have no usable value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sslcli.data.base import Notes
from sslcli.data.vectors.column import Column
from sslcli.data.vectors.fitted_columns import CATEGORY, LEFT_OUT, NUMBER, Counts, FittedColumn
from sslcli.data.vectors.table import Table
from sslcli.errors import one_line
from sslcli.run_dir.formatting import listed

_NAMED = 5  # columns that a start line names


def column_notes(table: Table, own: Sequence[Column], fitted: Sequence[FittedColumn], width: int) -> Notes:
    """Say what columns there are, and which are left out for what reason."""
    kinds = Counter(each.kind for each in fitted)
    found = f"{kinds[NUMBER]:,} of numbers, {kinds[CATEGORY]:,} of categories, in a vector of {width:,}"
    names = listed([one_line(each.name) for each in fitted if each.kind != LEFT_OUT], _NAMED)
    why: dict[str, list[str]] = {}
    for each in fitted:
        if each.kind == LEFT_OUT:
            why.setdefault(each.why, []).append(one_line(each.name))
    known = {each.name for each in fitted}
    new = [one_line(column.name) for column in own if column.name not in known]
    left_out = [f"{reason}: {', '.join(words)}" for reason, words in why.items()] + table.left_out
    left_out += [f"not in the run's data: {', '.join(new)}"] if new else []
    return (("columns", f"{found}: {names}"), *(("left out", text) for text in left_out))


def cell_notes(counts: Counts) -> Notes:
    """Say how many cells are missing, infinite or unknown, and in which columns most are."""
    said = (
        ("missing", counts.missing, "missing: 0 after standardisation, or the place of unknown categories"),
        ("missing", counts.infinite, "infinite or 1e6 deviations from the mean: read as missing"),
        ("unknown", counts.unknown, "with a category that has no place of its own"),
    )
    lines = []
    for word, found, meaning in said:
        named = [f"{one_line(name)} {count:,}" for name, count in found.most_common() if count]
        if named:
            lines.append(
                (word, f"{found.total():,} cell{'s' * (found.total() != 1)} {meaning}: {listed(named, _NAMED)}")
            )
    return tuple(lines)
