"""The shared memory through which workers send batches: small in containers (64 MB in Docker), so it is compared first.

A worker that finds it full dies in the middle of a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from sslcli.distributed.start import sharing

_SHARE = 0.9  # of the free shared memory that a run may take
_PLACE = "/dev/shm"  # noqa: S108  where Linux keeps shared memory


class ReadAhead(NamedTuple):
    """How far data are read ahead."""

    workers: int  # processes that read; 0 for none
    items: int = 4  # that each of them reads ahead


def that_fits(workers: int, item_bytes: int, held: int, say: Callable[[str], None]) -> ReadAhead:
    """Return how many of ``workers`` may read ahead without filling the shared memory; the fewest read least ahead.

    Args:
        workers: the number that is wanted.
        item_bytes: bytes of what a worker sends at a time.
        held: how many of these the receiver keeps.
        say: called with a line if fewer workers fit.
    """
    free = free_shared_memory()
    wanted = ReadAhead(workers)
    if free is None or not workers or not item_bytes:
        return wanted
    places = int(_SHARE * free) // (item_bytes * sharing()) - held
    if places >= workers * wanted.items:
        return wanted
    fitting = next((ReadAhead(places // items, items) for items in (4, 2, 1) if places >= items), ReadAhead(0))
    say(
        f"dataset.workers: {workers} workers need {item_bytes * (workers * wanted.items + held) / 1e6:,.0f} MB of "
        f"shared memory for their batches, and {_PLACE} has {free / 1e6:,.0f} MB free. "
        f"{f'{fitting.workers} of them will read' if fitting.workers else 'This process will read alone'}. "
        "Docker gives more by --shm-size=8g or --ipc=host."
    )
    return fitting


def free_shared_memory() -> int | None:
    """Return the free bytes of the shared memory; None where this is not known."""
    try:
        found = os.statvfs(_PLACE)
    except (OSError, AttributeError):  # another system
        return None
    return found.f_bavail * found.f_frsize
