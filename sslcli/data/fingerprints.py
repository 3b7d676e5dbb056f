"""Digests by which a run knows its data again, wherever they lie: of all their content, or of a drawn part of it.

Reading all content of large data would take too long: names and sizes of their files, and 64 drawn pieces, stand for
it. Paths and times are no part of a digest, because data are moved and copied.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from sslcli.data.many_files import CHUNK, THREADS, of_each
from sslcli.data.regular_files import open_regular

if TYPE_CHECKING:
    from sslcli.data.base import Dataset

LIMIT = 2**30  # bytes of content that are read: about a second
DRAWN = 64  # samples, or pieces of files, that stand for larger data
_PIECE = 2**20  # bytes that are read at a time
_DRAWN_PIECE = 2**16  # bytes of a drawn piece
_SAMPLES = 512  # that are read at a time


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


def of_samples(dataset: Dataset, limit: int = LIMIT) -> str:
    """Return the digest of a dataset's samples, such as ``content 0123456789abcdef``.

    All samples are read if they are in memory and have at most ``limit`` bytes, else 64 of them, drawn with a fixed
    seed. The shape and the dtype of each column are part of the digest in both cases.
    """
    from sslcli.data.base import CorruptSamples
    from sslcli.data.selection import drawn

    size = len(dataset) * sum(field.num_bytes for field in dataset.spec.values())
    all_of_them = len(dataset) <= DRAWN or (dataset.in_memory and size <= limit)
    index = torch.arange(len(dataset)) if all_of_them else drawn(len(dataset), DRAWN).sort().values
    digest = Digest()
    for part in index.split(_SAMPLES):
        try:
            digest.tensors(dataset.fetch(part))
        except CorruptSamples as error:
            digest.add(str(error).encode())
    if dataset.labels is not None:
        digest.tensors({"labels": dataset.labels})
    return f"content {digest}" if all_of_them else f"content of {len(index)} {digest}"


def of_files(paths: Sequence[Path], limit: int = LIMIT) -> str:
    """Return ``of_many`` of some files, whose names are those without their folders."""
    names = b"\0".join(os.fsencode(path.name) for path in paths)
    return of_many(len(paths), lambda i: str(paths[i]), names, limit)


def of_many(count: int, path: Callable[[int], str], names: bytes, limit: int = LIMIT) -> str:
    """Return what is known of ``count`` files, and its digest, such as ``names and content 0123456789abcdef``.

    Args:
        count: the number of files.
        path: the path of the i-th file. It is not part of the digest, because data may be moved.
        names: the names of all files, for the digest.
        limit: files of more bytes than this in all are known by their sizes and by 64 drawn pieces.
    """
    digest = Digest()
    digest.add(names)
    chunks = math.ceil(count / CHUNK)
    bar = tqdm(of_each(_size, count, path), "checking files", chunks, leave=False, disable=None, delay=2)
    sizes = [size for chunk in bar for size in chunk]
    if sum(max(size, 0) for size in sizes) <= limit:
        for contents in of_each(_content, count, path):
            digest.add(b"".join(contents))
        return f"names and content {digest}"
    digest.tensors({"sizes": torch.tensor(sizes)})
    with ThreadPoolExecutor(THREADS) as threads:
        for piece in threads.map(lambda place: _piece(path(place[0]), place[1]), _drawn_places(sizes)):
            digest.add(piece)
    return f"names, sizes and {DRAWN} pieces {digest}"


def _drawn_places(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Return 64 places (number of a file, offset in it), drawn with a fixed seed; large files are drawn like small."""
    rng = random.Random(0)
    files = [rng.randrange(len(sizes)) for _ in range(DRAWN)]
    return [(i, rng.randrange(max(sizes[i] - _DRAWN_PIECE, 0) + 1)) for i in files]


def _size(path: str) -> int:
    """Return a file's size; -1 for a file that is not there."""
    try:
        return os.stat(path).st_size  # noqa: PTH116  a million of them
    except OSError:
        return -1


def _piece(path: str, offset: int) -> bytes:
    """Return the bytes at a place of a file; none for a file that cannot be read."""
    try:
        with open_regular(path) as file:
            file.seek(offset)
            return file.read(_DRAWN_PIECE)
    except OSError:
        return b""


def _content(path: str) -> bytes:
    """Return the digest of a file's content; of no content for a file that cannot be read."""
    state = hashlib.blake2b(digest_size=16)
    try:
        with open_regular(path) as file:
            while piece := file.read(_PIECE):
                state.update(piece)
    except OSError:
        return bytes(16)
    return state.digest()
