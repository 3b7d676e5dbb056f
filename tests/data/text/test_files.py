"""Texts in files: formats, columns, splits and what is wrong with them."""

import csv
import json
import random
import re
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.forked import Forked

from sslcli.data.text.files import text
from sslcli.data.text.lines import LONGEST, lines_of
from sslcli.data.text.splitting import hash_of
from sslcli.errors import UserError
from sslcli.run_dir.fitted import Fitted

WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("a", "e", "ing", "ous", "tion")]


def sentences(count, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 9))) for _ in range(count)]


def made(path, **keys):
    return text(path=str(path), **{"vocab_size": 300, **keys}).fit(Fitted())


def spelled(dataset, column="text"):
    return dataset.vocabulary.decode(dataset.fetch(torch.arange(len(dataset)))[column])


def notes(dataset):
    return dict(dataset.notes)


RECORDS = [
    {"text": line, "title": line.split()[0], "label": str(number % 3)} for number, line in enumerate(sentences(60))
]
RECORDS[7]["label"] = ""
RECORDS[8] |= {"text": 'said "no", and\nleft', "title": "a, b"}


def write(path, records=RECORDS):
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(records[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(records)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("".join(record["text"] + "\n" for record in records))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_has_the_same_texts_pairs_labels_and_split(tmp_path, suffix):
    train = made(write(tmp_path / f"a{suffix}"), pair="title")
    both = (train, train.held_out)
    found = {
        (body, title, part.classes[label] if label >= 0 else "")
        for part in both
        for body, title, label in zip(spelled(part), spelled(part, "pair"), part.labels.tolist())
    }
    tidy = {(re.sub(r"\W+", " ", a).strip(), re.sub(r"\W+", " ", b).strip(), c) for a, b, c in found}
    assert tidy == {
        (re.sub(r"\W+", " ", r["text"]).strip(), re.sub(r"\W+", " ", r["title"]), r["label"]) for r in RECORDS
    }
    assert sum(map(len, both)) == 60 and train.classes == ("0", "1", "2")
    held_out = {record["text"] for record in RECORDS if hash_of(record["text"]) < 0.2}
    assert len(train.held_out) == len(held_out) > 5
    unit = "row" if suffix == ".parquet" else "line"
    assert train.held_out.name_of(0).startswith(f"a{suffix}, {unit} ")


def test_the_lines_of_a_file_are_texts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\ufeffba be\r\n\n  \nda de\nsa\nbe", newline="")
    train = made(path, holdout=0.0)
    assert spelled(train) == ["ba be", "da de", "sa", "be"] and train.labels is None and train.held_out is None
    assert notes(train)["rows"] == "6 of 1 file, 2 without a text left out"
    assert [train.name_of(i) for i in (0, 1)] == ["a.txt, line 1", "a.txt, line 4"]


def sides(dataset):
    return tuple(frozenset(spelled(part)) for part in (dataset, dataset.held_out))


def test_duplicates_fall_on_one_side_and_shuffled_or_doubled_rows_change_no_side(tmp_path):
    lines = sentences(200)
    lines += [f"  {line} " for line in lines[:50]]  # blanks around a text do not count
    first = made(write(tmp_path / "a.txt", [{"text": line} for line in lines]))
    shuffled = random.Random(1).sample(lines, len(lines))
    again = made(write(tmp_path / "b.txt", [{"text": line} for line in shuffled * 2]))
    assert sides(first) == sides(again) and not sides(first)[0] & sides(first)[1] and len(first.held_out) > 3
    assert len(again.held_out) == 2 * len(first.held_out)


def test_the_tokenizer_sees_the_training_part_only(tmp_path):
    lines = sentences(200)
    path = write(tmp_path / "a.txt", [{"text": line} for line in lines])
    files = Fitted()
    text(path=str(path), vocab_size=300).fit(files)
    kept = [line for line in lines if hash_of(line) >= 0.05]
    path = write(tmp_path / "b.txt", [{"text": line} for line in kept])
    alone = Fitted()
    text(path=str(path), vocab_size=300, holdout=0.0).fit(alone)
    assert files.files == alone.files


@pytest.mark.parametrize(
    ("holdout", "sizes"), [(None, (40, 10)), (0.0, (40, 0)), (0.25, None)], ids=["test", "all", "share"]
)
def test_a_column_splits(tmp_path, holdout, sizes):
    parts = ["train"] * 40 + ["test"] * 10 + ["val"] * 10
    records = [{**record, "split": part} for record, part in zip(RECORDS, parts)]
    train = made(write(tmp_path / "a.csv", records), holdout=holdout)
    if sizes is None:  # the test part is not used to choose settings
        own = {record["text"] for record in records[:40]}
        chosen = {line for line in own if hash_of(line) < 0.25}
        assert (len(train), len(train.held_out)) == (40 - len(chosen), len(chosen))
    else:
        assert (len(train), len(train.held_out or ())) == sizes
    assert notes(train)["rows"] == f"60 of 1 file, {20 if holdout is not None else 10} of other parts left out"


def test_names_of_files_split_and_validation_stands_in_for_test(tmp_path):
    for name, start in (("train", 0), ("valid", 30)):
        write(tmp_path / f"{name}.csv", RECORDS[start : start + 30])
    train = made(tmp_path)
    assert (len(train), len(train.held_out)) == (30, 30) and "split" not in notes(train)


def test_unknown_words_of_other_texts_are_counted(tmp_path):
    files = Fitted()
    own = text(path=str(write(tmp_path / "a.txt")), vocab_size=300, holdout=0.0).fit(files)
    assert ", 0.00% unknown; a vocabulary of" in notes(own)["tokens"]
    (tmp_path / "b.txt").write_text("ba be \u03b1\u03b2 \u03b3\nba \u4e2d be\n")
    trained = Fitted(files.files, complete=True)
    other = text(path=str(tmp_path / "b.txt"), vocab_size=7, holdout=0.0).fit(trained)
    said = notes(other)["tokens"]
    assert "42.86% unknown" in said and said.endswith(f"a vocabulary of {own.vocabulary.size}, the run's own")
    assert other.vocabulary.tokenizer.to_str() == own.vocabulary.tokenizer.to_str()


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_long_texts_are_cut_and_counted(tmp_path, kind):
    path = tmp_path / "a.txt"
    path.write_text("ba be da\n" + "ba " * 33_000 + "\n" + "x" * 100_000 + "\n")
    train = made(path, length=16, tokenizer=kind, holdout=0.0)
    ids = train.fetch(torch.arange(3))["text"]
    cut = 2 if kind == "bpe" else 1  # a word of more than 100 characters is one unknown token, as in BERT's
    assert f"{cut} of 3 texts cut" in notes(train)["tokens"]
    field = train.spec["text"]
    assert ids.shape == (3, 16) and (ids[1] != field.pad).all()
    assert ids[0, 0] in field.special and ids[1, -1] in field.special and len(field.special) == 2


def test_what_is_no_utf8_is_replaced_and_counted_or_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"ba be\nca\xe9 be\nda\0de\n")
    train = made(path, holdout=0.0, tokenizer="bpe")
    assert spelled(train) == [" ba be", " ca\ufffd be", " da de"]
    said = "3 of 1 file, 1 with bytes that are no UTF-8, replaced by U+FFFD, 1 with NUL characters, replaced by blanks"
    assert notes(train)["rows"] == said
    with pytest.raises(UserError, match=r"a\.txt, line 2: byte 0xe9 at place 3 is no UTF-8"):
        made(path, invalid="refuse")


BAD = {
    "empty.txt": (b"", {}, "empty.txt is empty"),
    "blank.txt": (b"\n \n\t\n", {}, "there is no text in .*blank.txt: 3 rows, all without one"),
    "header.csv": (b"text,label\n", {}, "there is no text in .*header.csv: 0 rows"),
    "column.csv": (b"review,label\na,b\n", {"text": "reviw"}, "no column 'reviw'. Did you mean 'review'"),
    "which.csv": (b"review,label\na,b\n", {}, "has no column 'text'; name one of its columns: review, label"),
    "twice.csv": (b"text,text\na,b\n", {}, "has 2 columns 'text'"),
    "quote.csv": (b'text,label\na,b\n"c d,e\nf,g\n', {}, "line 3: a quote that is opened here is never closed"),
    "stray.tsv": (b'text\tlabel\na\tb\n"c" d\te\n', {}, "line 3: .*quotes=false"),
    "fields.csv": (b"text,label\na,b\na,b,c\n", {}, "line 3 has 3 fields, and the header names 2"),
    "array.json": (b"[\n{}\n]", {}, r"line 1 is no JSON .*one array: write an object a line"),
    "number.jsonl": (b'{"text": "a"}\n3\n', {}, "line 2 is a JSON int"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": \n', {}, "line 2 is no JSON"),
    "type.jsonl": (b'{"text": "a"}\n{"text": 3}\n', {}, "line 2: column 'text' has a int"),
    "nested.jsonl": (b'{"text": "a", "label": {}}\n', {}, "line 1: a dict, and a class is a number or a name"),
    "wide.txt": (b"\xff\xfea\0b\0", {}, "UTF-16: iconv"),
    "packed.txt": (b"\x1f\x8b\x08", {}, "compressed: gunzip"),
    "lines.txt": (b"a\nb\n", {"label": "stars"}, "no column 'stars'. Its lines are texts"),
    "part.csv": (b"text,split\na,train\nb,tst\n", {}, "line 3: 'tst' is none of train, validation and test"),
    "only.csv": (b"text,split\na,test\n", {}, "no text is left for training; dataset.split=none"),
    "broken.parquet": (b"PAR1 no", {}, "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_file_is_a_line_with_its_place(tmp_path, name):
    content, keys, said = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        made(tmp_path / name, **keys)
    assert len(str(error.value).splitlines()) == 1 and name in str(error.value) or name == "only.csv"


def test_a_header_that_differs_names_both_files(tmp_path):
    write(tmp_path / "a.csv")
    write(tmp_path / "b.csv", [{"Text": "a", "label": "1"}])
    with pytest.raises(UserError, match=r"b\.csv has no column 'text', which a\.csv has. Did you mean 'Text'"):
        made(tmp_path)


def test_files_of_several_formats_are_not_mixed(tmp_path):
    write(tmp_path / "a.csv")
    write(tmp_path / "readme.txt")
    with pytest.raises(UserError, match=r"several formats \(\.csv, \.txt\); choose by a pattern, such as '.*/\*\.csv'"):
        made(tmp_path)
    assert len(made(f"{tmp_path}/*.csv", holdout=0.0)) == 60


def test_quotes_may_be_characters(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"ba" be\t0\n" da\t1\n')
    train = made(tmp_path / "a.tsv", quotes=False, holdout=0.0)
    assert spelled(train) == ['" ba " be', '" da']


def test_a_file_is_never_in_memory_as_a_whole(tmp_path):
    line = "ba be " * 200 + "\n"
    with (tmp_path / "a.txt").open("w") as file:
        for _ in range(20_000):  # 24 MB
            file.write(line)
    tracemalloc.start()
    count = sum(1 for _ in lines_of(tmp_path / "a.txt", "replace", Counter()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000 and peak < 2**20
    (tmp_path / "b.txt").write_bytes(b"x" * (LONGEST + 1))
    with pytest.raises(UserError, match="line 1 has more than"):
        list(lines_of(tmp_path / "b.txt", "replace", Counter()))


def fitted_with_its_peak(small, large):
    """Read two files one after the other; print the memory's peak in MB after each."""
    for path in (small, large):
        count = len(made(path, holdout=0.5, vocab_size=2000))
        peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
        print(f"{count} {peak}")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read there")
def test_the_memory_that_reading_and_tokenising_takes_does_not_grow_with_the_file(tmp_path):
    """The counts of words, the ids and the split of 7 MB take no 1.5 MB more than those of 1.8 MB."""
    rng = random.Random(0)
    words = ["".join(rng.choices(WORDS, k=5)) for _ in range(60)]
    lines = [" ".join(rng.choices(words, k=20)) + "\n" for _ in range(5000)]
    for name, times in (("small.txt", 1), ("large.txt", 4)):
        (tmp_path / name).write_text("".join(lines * times))
    entry = partial(fitted_with_its_peak, tmp_path / "small.txt", tmp_path / "large.txt")
    output, _ = Forked(entry, "fit", environment={"XDG_CACHE_HOME": str(tmp_path / "cache")}).communicate(timeout=120)
    (few, before), (many, after) = ([float(number) for number in line.split()] for line in output.split("\n")[:2])
    assert abs(many - 4 * few) < 9 and (tmp_path / "large.txt").stat().st_size > 6e6
    assert after - before < 1.5, output


def test_texts_are_tokenised_once_while_their_file_does_not_change(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, files = spelled(made(path)), list(Path(tmp_path / "cache").rglob("ids"))
    made(path)
    assert len(files) == 1 and list(Path(tmp_path / "cache").rglob("ids")) == files
    (files[0].parent / "ends").write_bytes(b"\1" * 8)  # damaged: made again
    assert spelled(made(path)) == first
    write(path, RECORDS[:30])
    assert len(made(path, holdout=0.0)) == 30
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))  # no folder can be made there
    assert len(made(path, holdout=0.0)) == 30
