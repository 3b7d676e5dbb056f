"""Tokenised texts in files that are mapped into memory: written once in one pass, and read by index."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sslcli.data.disk_cache import cache_dir, is_read_only
from sslcli.data.download import alone
from sslcli.data.text.rows import Counts, Row, Source
from sslcli.data.text.vocabulary import Vocabulary

_LAYOUT = "texts 1"  # version of the files
_ROWS = 2048  # rows that are tokenised at a time
_NO_LABEL = -1


@dataclass
class About:
    """What is known of tokenised texts beside the texts."""

    counts: dict[str, int]  # see ``Counts``
    classes: list[str]  # names of the labels, in the order in which they were found
    ids: str  # the dtype of the ids


class Tokenised:
    """The arrays in a folder, mapped into memory.

    Attributes:
        ids: all texts one after the other; a row's pair follows its text.
        ends: (N * columns,) int64, where each text ends in ``ids``.
        labels: (N,) int32, numbers in ``about.classes``, -1 for none.
        parts: (N,) uint8, what ``part_of`` returned.
        places: (N, 2) int64, as in ``Row``.

    Raises:
        OSError: a file is missing.
        ValueError: a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.about = About(**json.loads((folder / "about.json").read_text()))
        self.ids = _mapped(folder / "ids", self.about.ids)
        self.ends = _mapped(folder / "ends", "<i8")
        self.labels = _mapped(folder / "labels", "<i4")
        self.parts = _mapped(folder / "parts", "u1")
        self.places = _mapped(folder / "places", "<i8").reshape(-1, 2)
        sizes = {len(self.labels), len(self.parts), len(self.places)}
        if len(sizes) > 1 or (len(self.ends) and self.ends[-1] != len(self.ids)):
            raise ValueError(f"{folder} is damaged")

    def rows(self, numbers: np.ndarray, length: int, pad: int) -> np.ndarray:
        """Return the texts ``numbers`` (B,) among all texts and pairs as rows (B, length), filled up with ``pad``."""
        starts = np.where(numbers > 0, self.ends[numbers - 1], 0)
        places = starts[:, None] + np.arange(length)
        filled = places < self.ends[numbers][:, None]
        found = np.full(places.shape, pad, np.int32)
        found[filled] = self.ids[places[filled]]
        return found


def tokenised(
    source: Source, vocabulary: Vocabulary, length: int, part_of: Callable[[Row], int], key: str
) -> Tokenised:
    """Tokenise all rows of a source, or read what an earlier start has written into the user's cache.

    Args:
        source: the texts.
        vocabulary: the tokenizer.
        length: tokens of a text; longer ones are cut and counted.
        part_of: the part that a row belongs to.
        key: what the result depends on beside the files of the source.
    """
    try:
        folder = place_of(source, f"{length} {key}")
    except RuntimeError:  # no home folder
        return _temporary(source, vocabulary, length, part_of)
    found = _read(folder)
    if found is not None:
        return found
    if is_read_only():
        return _temporary(source, vocabulary, length, part_of)
    with alone(folder):
        found = _read(folder)
        if found is not None:
            return found
        unfinished = folder.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            unfinished.mkdir(parents=True)
        except OSError:  # the cache is read-only
            return _temporary(source, vocabulary, length, part_of)
        try:
            write(unfinished, source, vocabulary, length, part_of)
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return Tokenised(folder)


def place_of(source: Source, key: str) -> Path:
    """Return the path in the user's cache for what is made of a source while its files do not change.

    Raises:
        RuntimeError: there is no home folder.
    """
    stamps = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in source.files]
    name = hashlib.sha256(json.dumps([_LAYOUT, stamps, source.settings, key]).encode()).hexdigest()[:32]
    return cache_dir() / "texts" / name


def write(folder: Path, source: Source, vocabulary: Vocabulary, length: int, part_of: Callable[[Row], int]) -> None:
    """Write the files of ``Tokenised`` in one pass over the rows. Rows with a blank text or pair are left out."""
    counts: Counts = Counter()
    classes: dict[str, int] = {}
    dtype = "<u2" if vocabulary.size <= 2**16 else "<i4"
    end = 0
    names = ("ids", "ends", "labels", "parts", "places")
    files = {name: (folder / name).open("wb") for name in names}
    try:
        for rows in _pieces(tqdm(present(source, counts), "tokenising", unit=" texts", disable=None, delay=2)):
            texts = [text for row in rows for text in (row.text, row.pair)[: len(source.columns)]]
            encoded = vocabulary.encode(texts, length)  # type: ignore[arg-type]  # a pair is there where a column is
            flat = np.concatenate([np.array(ids, dtype) for ids, _ in encoded])
            ends = end + np.cumsum([len(ids) for ids, _ in encoded], dtype=np.int64)
            end = int(ends[-1])
            labels = [classes.setdefault(row.label, len(classes)) if row.label else _NO_LABEL for row in rows]
            arrays = (
                flat,
                ends,
                np.array(labels, "<i4"),
                np.array([part_of(row) for row in rows], "u1"),
                np.array([row.place for row in rows], "<i8"),
            )
            for name, array in zip(names, arrays):
                array.tofile(files[name])
            counts["cut"] += sum(is_cut for _, is_cut in encoded)
            counts["tokens"] += int((~np.isin(flat, vocabulary.special)).sum())
            counts["unknown"] += int((flat == vocabulary.unknown).sum()) if vocabulary.unknown is not None else 0
    finally:
        for file in files.values():
            file.close()
    (folder / "about.json").write_text(json.dumps(asdict(About(dict(counts), list(classes), dtype))))


def present(source: Source, counts: Counts) -> Iterator[Row]:
    """Yield the rows whose texts are not blank; the others are counted."""
    for row in source.rows(counts):
        counts["rows"] += 1
        if not row.text.strip():
            counts["blank"] += 1
        elif "pair" in source.columns and not (row.pair or "").strip():
            counts["blank pair"] += 1
        else:
            yield row


def _pieces(rows: Iterator[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while piece := list(islice(iterator, _ROWS)):
        yield piece


def _read(folder: Path) -> Tokenised | None:
    try:
        return Tokenised(folder)
    except (OSError, ValueError, TypeError):
        return None


def _temporary(source: Source, vocabulary: Vocabulary, length: int, part_of: Callable[[Row], int]) -> Tokenised:
    """Return arrays in files that have no name any more, so that they are gone with this process."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), source, vocabulary, length, part_of)
        return Tokenised(Path(folder))


def _mapped(path: Path, dtype: str) -> np.ndarray:
    if not os.stat(path).st_size:  # noqa: PTH116  nothing can be mapped
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, mode="r")
