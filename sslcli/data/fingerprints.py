"""Digests by which a run that goes on knows its data again: of their content, or of names, sizes and times of files.

Reading all content would take too long for large files, whose names, sizes and times of modification stand for it. For
small ones the content itself is read, so that a copy without its times is known again, too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

if TYPE_CHECKING:
    from sslcli.data.base import Dataset

LIMIT = 2**30  # bytes of content that are read: about a second
_CHUNK = 1024  # files that a thread reads, one after the other
_THREADS = 16  # they mostly wait for the file system
_PIECE = 2**20  # bytes that are read at a time
_SAMPLES = 512  # that are read at a time
_FEW = 256  # samples that stand for all where they are not in memory


class Digest:
    """A 64-bit digest of bytes and tensors, by BLAKE2b."""

    def __init__(self) -> None:
        self._state = hashlib.blake2b(digest_size=8)

    def add(self, content: bytes) -> None:
        """Add some bytes."""
        self._state.update(b"%d " % len(content) + content)

    def tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Add the name, dtype, shape and content of each tensor."""
        for name, tensor in tensors.items():
            self.add(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            self._state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)

    def __str__(self) -> str:
        return self._state.hexdigest()


def of_samples(dataset: Dataset) -> str:
    """Return the digest of a dataset's samples, such as ``content 0123456789abcdef``.

    All samples are read, but for a larger array in memory 1 GiB of them, drawn with a fixed seed, and of samples that
    are not in memory, which may have to be decoded, 256.
    """
    from sslcli.data.base import CorruptSamples, drawn

    size = sum(field.num_bytes for field in dataset.spec.values())
    count = LIMIT // max(size, 1) if dataset.in_memory else _FEW
    all_of_them = count >= len(dataset)
    index = torch.arange(len(dataset)) if all_of_them else drawn(len(dataset), count).sort().values
    digest = Digest()
    for part in index.split(_SAMPLES):
        try:
            digest.tensors(dataset.fetch(part))
        except CorruptSamples as error:
            digest.add(str(error).encode())
    if dataset.labels is not None:
        digest.tensors({"labels": dataset.labels})
    return f"content {digest}" if all_of_them else f"content of {len(index)} {digest}"


def of_files(paths: Sequence[Path], *, times: bool = True) -> str:
    """Return ``of_many`` of some files, whose names are those without their folders."""
    return of_many(
        len(paths), lambda i: str(paths[i]), b"\0".join(os.fsencode(path.name) for path in paths), times=times
    )


def of_many(count: int, path: Callable[[int], str], names: bytes, *, times: bool = True) -> str:
    """Return what is known of ``count`` files, and its digest, such as ``names and content 0123456789abcdef``.

    Args:
        count: the number of files.
        path: the path of the i-th file. It is not part of the digest, because data may be moved.
        names: the names of all files, for the digest.
        times: whether large files are known by their times, too; False for copies that have the time of copying.
    """

    def sizes_of(start: int) -> list[tuple[int, int]]:
        return [_size_and_time(path(i)) for i in range(start, min(start + _CHUNK, count))]

    def content_of(start: int) -> bytes:
        return b"".join(_content(path(i)) for i in range(start, min(start + _CHUNK, count)))

    digest = Digest()
    digest.add(names)
    starts = range(0, count, _CHUNK)
    with ThreadPoolExecutor(_THREADS) as threads:
        bar = tqdm(threads.map(sizes_of, starts), "checking files", len(starts), leave=False, disable=None, delay=2)
        found = [status for chunk in bar for status in chunk]
        if sum(max(size, 0) for size, _ in found) <= LIMIT:
            for content in threads.map(content_of, starts):
                digest.add(content)
            return f"names and content {digest}"
    digest.tensors({"sizes": torch.tensor([size for size, _ in found])})
    if times:
        digest.tensors({"times": torch.tensor([time for _, time in found])})
    return f"names, sizes and times {digest}" if times else f"names and sizes {digest}"


def _size_and_time(path: str) -> tuple[int, int]:
    """Return a file's size and its time of modification in nanoseconds; -1 for a file that is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116  a million of them
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _content(path: str) -> bytes:
    """Return the digest of a file's content; of no content for a file that cannot be read."""
    state = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            while piece := file.read(_PIECE):
                state.update(piece)
    except OSError:
        return bytes(16)
    return state.digest()
