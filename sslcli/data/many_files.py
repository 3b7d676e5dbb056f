"""Asks for something of each of a million files: in threads, which mostly wait for the file system."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

CHUNK = 1024  # files that a thread asks for, one after the other
THREADS = 16


def of_each(ask: Callable[[str], T], count: int, path: Callable[[int], str]) -> Iterator[list[T]]:
    """Yield what ``ask`` returns for each of ``count`` paths, in their order, ``CHUNK`` at a time."""

    def chunk(start: int) -> list[T]:
        return [ask(path(i)) for i in range(start, min(start + CHUNK, count))]

    with ThreadPoolExecutor(THREADS) as threads:
        yield from threads.map(chunk, range(0, count, CHUNK))
