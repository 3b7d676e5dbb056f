"""Texts as a dataset: the tokenizer is fitted on the training part, and ids are read from mapped files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sslcli.data.base import Dataset, Notes, Subset
from sslcli.data.disk_cache import replacing
from sslcli.data.fingerprints import LIMIT, of_files
from sslcli.data.text.given import given_tokenizer
from sslcli.data.text.notes import counted, notes_of
from sslcli.data.text.rows import Source
from sslcli.data.text.splitting import HELD_OUT, TRAIN, Split
from sslcli.data.text.tokenised import Tokenised, place_of, present, tokenised
from sslcli.data.text.train_tokenizer import VOCAB_SIZE, trained
from sslcli.data.text.vocabulary import NAME, Vocabulary, library
from sslcli.errors import UserError
from sslcli.run_dir.fitted import FACTS, Fitted
from sslcli.types import Spec

CONTINUES = "tokens.continues"  # the fact which ids go on with a word, (ids,) bool
TRAINED = ("wordpiece", "bpe")  # kinds of tokenizers that are trained here


class Texts(Dataset):
    """Texts before they are tokenised, which ``fit`` does.

    Args:
        source: the rows.
        length: tokens of a text, with those of begin and end; longer ones are cut and counted.
        tokenizer: ``wordpiece`` or ``bpe``, trained on the training part; or a tokenizer.json, or a folder with one.
        vocab_size: tokens of a trained tokenizer; None is 8,000.
        holdout: a fraction of train to hold out instead of a test part; None holds that out, or, where the data are
            not split, 0.2 with labels, else 0.05.

    Raises:
        UserError: the library is not installed, or the tokenizer cannot be used.
    """

    def __init__(
        self, source: Source, *, length: int, tokenizer: str, vocab_size: int | None, holdout: float | None
    ) -> None:
        library()
        if vocab_size is not None and tokenizer not in TRAINED:
            raise UserError(
                f"dataset.vocab_size is of a tokenizer that is trained, and {tokenizer} is one already. Leave it out."
            )
        self.source, self.length, self.spec = source, length, Spec()
        self.kind, self.vocab_size = tokenizer, vocab_size or VOCAB_SIZE
        self.split = Split.of(source, holdout)
        self.given = None if tokenizer in TRAINED else given_tokenizer(tokenizer)

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _count(self) -> int:
        return sum(1 for _ in present(self.source, Counter()))

    def fingerprint(self, limit: int = LIMIT) -> str:
        return f"texts, {self.source.settings}, {of_files(list(self.source.files), limit)}"

    def fit(self, files: Fitted) -> Dataset:
        content = files.file(NAME, self._tokenizer)
        vocabulary = Vocabulary(content)
        key = f"{hashlib.sha256(content).hexdigest()} {self.split}"
        found = tokenised(self.source, vocabulary, self.length, self.split.part_of, key)
        if not len(found.labels):
            rows = found.about.counts.get("rows", 0)
            raise UserError(f"dataset.path: there is no text in {self._files()}: {rows:,} rows, all without one.")
        parts = self.split.settled(np.asarray(found.parts))
        counts, is_own = found.about.counts, not files.complete
        notes = notes_of(self.source, vocabulary, counts, self.length, self.split, parts, is_own=is_own)
        everything = TokenisedTexts(found, self.source, vocabulary, self.length, notes)
        everything.spec.facts = files.tensors(FACTS, lambda: {CONTINUES: vocabulary.continues()})
        train, held_out = (
            Subset(everything, torch.from_numpy(np.flatnonzero(parts == part))) for part in (TRAIN, HELD_OUT)
        )
        train.held_out = held_out if len(held_out) else None
        return train

    def _files(self) -> str:
        more = f" and {len(self.source.files) - 1:,} more files" if len(self.source.files) > 1 else ""
        return f"{self.source.files[0]}{more}"

    def _tokenizer(self) -> bytes:
        if self.given is not None:
            return self.given
        try:
            place = place_of(self.source, f"{self.kind} {self.vocab_size} {self.split}").with_suffix(".json")
        except RuntimeError:  # no home folder
            return self._trained()
        if place.is_file():
            return place.read_bytes()
        content = self._trained()
        with suppress(OSError, UserError), replacing(place) as file:  # for other runs, such as a sweep's jobs
            file.write(content)
        return content

    def _trained(self) -> bytes:
        return trained(self.kind, self._training_texts(), self.vocab_size)

    def _training_texts(self) -> Iterator[str]:
        for row in present(self.source, Counter()):
            if self.split.part_of(row) == TRAIN:
                yield row.text
                if row.pair is not None:
                    yield row.pair


class TokenisedTexts(Dataset):
    """All texts of a source as ids: the columns ``text`` and, where the source has it, ``pair``.

    Attributes:
        vocabulary: the tokenizer, which also spells ids as texts.
    """

    in_memory = True  # the files are mapped into memory

    def __init__(self, found: Tokenised, source: Source, vocabulary: Vocabulary, length: int, notes: Notes) -> None:
        self.found, self.source, self.vocabulary, self.length, self.notes = found, source, vocabulary, length, notes
        self.counted = counted(found.about.counts, length)
        self.spec = Spec({name: vocabulary.field(length) for name in source.columns})
        if source.has_labels and found.about.classes:
            self.classes = tuple(sorted(found.about.classes, key=_in_order))
            rank = {name: number for number, name in enumerate(self.classes)}
            ranks = torch.tensor([*(rank[name] for name in found.about.classes), -1])  # -1 takes the last
            self.labels = ranks[torch.from_numpy(np.asarray(found.labels, np.int64))]

    def __len__(self) -> int:
        return len(self.found.labels)

    def fetch(self, index: Tensor) -> dict[str, Tensor]:
        columns = len(self.spec)
        return {
            name: torch.from_numpy(self.found.rows(columns * index.numpy() + i, self.length, self.vocabulary.pad))
            for i, name in enumerate(self.spec)
        }

    def fingerprint(self, limit: int = LIMIT) -> str:
        return f"texts, {self.source.settings}, {of_files(list(self.source.files), limit)}"

    def name_of(self, i: int) -> str:
        """Return the file and the row of a text."""
        number, row = self.found.places[i].tolist()
        return self.source.name_of((number, row))


def _in_order(name: str) -> tuple[int, float, str]:
    """Return the key by which classes are sorted: numbers by their values, then names."""
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
