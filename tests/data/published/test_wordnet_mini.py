"""The embedded definitions: what is in the file, and how it is split."""

import hashlib
import lzma
import re
import zlib
from collections import Counter
from pathlib import Path

import pytest
import torch

from sslcli.data.base import with_label
from sslcli.data.published.wordnet_mini import CLASSES, EMBEDDED, Definitions, wordnet_mini
from sslcli.run_dir.fitted import Fitted

DEBIAN = Path("/usr/share/wordnet/data.noun")


@pytest.fixture(scope="module")
def rows():
    return list(Definitions().rows(Counter()))


def test_it_has_the_definitions_that_a_hash_takes(rows):
    assert len(rows) == 24_759 and {row.label for row in rows} == set(CLASSES) and len(CLASSES) == 25
    assert all(zlib.crc32(row.text.encode()) % 100 < 30 for row in rows)
    assert ("noun.act", "kindness, benignity", "a kind act") in {(row.label, row.pair, row.text) for row in rows}
    sides = {part: {row.text for row in rows if row.part == part} for part in ("train", "test")}
    assert sum(row.part == "test" for row in rows) == 4925 and not sides["train"] & sides["test"]


def test_the_notice_is_beside_it_and_names_its_bytes():
    notice = EMBEDDED.with_suffix(".md").read_text()
    assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() in notice
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in notice and EMBEDDED.stat().st_size < 700_000


@pytest.mark.skipif(not DEBIAN.is_file(), reason="needs Debian's wordnet-base")
def test_it_is_what_the_source_has():
    """Read in another way: by a regular expression over the whole file."""
    found = re.findall(
        r"^\d{8} (\d\d) n [0-9a-f]{2} .* \| (.*?)(?:; \"|$)", DEBIAN.read_text().replace("  \n", "\n"), re.M
    )
    kept = [(number, text.strip()) for number, text in found if zlib.crc32(text.strip().encode()) % 100 < 30]
    lines = [line.split("\t") for line in lzma.decompress(EMBEDDED.read_bytes()).decode().splitlines()]
    here = [(f"{4 + CLASSES.index(name):02d}", text) for name, _, text in lines]
    assert here == [(number, text) for number, text in kept if number != "03"]


@pytest.mark.slow
def test_its_columns_spell_the_texts(rows):
    train = wordnet_mini(vocab_size=2000).fit(Fitted())
    assert len(train) == 24_759 - 4925 and len(train.held_out) == 4925 and list(train.spec) == ["text", "pair"]
    tests = [row for row in rows if row.part == "test"]
    index = torch.arange(0, 4925, 97)
    columns = train.held_out.fetch(index)
    for name in ("text", "pair"):
        assert columns[name].shape == (len(index), 64) and columns[name].dtype == torch.int32
        whole = columns[name][:, -1] == train.spec[name].pad
        spelled = train.held_out.vocabulary.decode(columns[name][whole])
        wanted = [getattr(tests[i], name) for i in index[whole].tolist()]
        assert len(wanted) >= len(index) - 1
        assert [re.sub(r"\W", "", text) for text in spelled] == [re.sub(r"\W", "", text).lower() for text in wanted]
    assert [train.classes[label] for label in train.held_out.labels[index]] == [tests[i].label for i in index.tolist()]
    assert len(with_label(train.labels)) == len(train)
