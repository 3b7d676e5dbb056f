"""WordNet 3.0 (Fellbaum 1998): 24,759 definitions of nouns with their lemmas, from a file inside the package."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

from sslcli.config.ranges import Count, Share
from sslcli.data.base import Dataset
from sslcli.data.text.rows import Counts, Row, Source
from sslcli.data.text.texts import Texts

EMBEDDED = Path(__file__).with_name("wordnet_mini.xz")
CLASSES = (
    "noun.act",
    "noun.animal",
    "noun.artifact",
    "noun.attribute",
    "noun.body",
    "noun.cognition",
    "noun.communication",
    "noun.event",
    "noun.feeling",
    "noun.food",
    "noun.group",
    "noun.location",
    "noun.motive",
    "noun.object",
    "noun.person",
    "noun.phenomenon",
    "noun.plant",
    "noun.possession",
    "noun.process",
    "noun.quantity",
    "noun.relation",
    "noun.shape",
    "noun.state",
    "noun.substance",
    "noun.time",
)  # fmt: skip  the names of WordNet's files of nouns, in their order (lexnames(5WN)), without noun.Tops


def wordnet_mini(
    *, length: Count = 64, tokenizer: str = "wordpiece", vocab_size: Count | None = None, holdout: Share | None = None
) -> Dataset:
    """Make the dataset of definitions (``text``), lemmas (``pair``) and 25 classes.

    Args:
        length: tokens of a text; longer ones are cut.
        tokenizer: ``wordpiece`` or ``bpe``, trained on the training part; or a tokenizer.json, or a folder with one.
        vocab_size: tokens of a trained tokenizer; None is 8,000.
        holdout: a fraction of train to hold out for probes instead of the test part, a fifth of the definitions.
    """
    return Texts(Definitions(), length=length, tokenizer=tokenizer, vocab_size=vocab_size, holdout=holdout)


class Definitions(Source):
    """The rows of the embedded file; a CRC-32 of the definition chooses the test part."""

    columns = ("text", "pair")
    has_labels = has_parts = True
    settings = "wordnet_mini"
    files = (EMBEDDED,)

    def rows(self, counts: Counts) -> Iterator[Row]:
        lines = lzma.decompress(EMBEDDED.read_bytes()).decode().splitlines()
        for number, line in enumerate(lines):
            label, lemmas, text = line.split("\t")
            part = "test" if zlib.crc32(text.encode()) % 5 == 0 else "train"
            yield Row(text, lemmas, label, part, (0, number))
