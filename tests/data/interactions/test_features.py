"""Features of users and items: against loops, from every kind of file, and what is told of odd ones."""

import csv
import json

import numpy as np
import pytest
import torch

from sslcli.data.interactions.ids import Ids
from sslcli.data.interactions.interactions import interactions
from sslcli.data.vectors.vectors import vectors
from sslcli.errors import UserError
from sslcli.run_dir.fitted import Fitted

USERS = [f"u{i}" for i in range(6)] + ["2"]


@pytest.fixture
def table(tmp_path):
    """Seven users with six of eight items each; the last item is of no training pair."""
    rows = [(user, str((3 * k + i) % 8), i) for k, user in enumerate(USERS) for i in range(6)]
    with (tmp_path / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("user", "item", "time"), *rows, ("u0", "new", 99)])
    return str(tmp_path / "log.csv")


def write(path, header, rows, delimiter=","):
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    return str(path)


def fitted(table, split="time", **keys):
    files = Fitted()
    made = interactions(path=table, split=split, **keys).fit(files)
    return made, files, Ids.of_file(files.files["ids.json"])


AGES = {"u0": "20", "u1": "30", "u2": "40", "u3": "inf", "u4": "", "2": "50"}
JOBS = {"u0": "cook", "u1": "cook", "u2": "smith", "u3": "", "u4": "smith", "2": "NA"}


def test_features_are_those_of_a_loop_over_the_users_of_training(tmp_path, table):
    rows = [("stranger", 10**6, "king"), ("", 3, "cook"), *((user, AGES[user], JOBS[user]) for user in AGES)]
    rows += [("u0", 99, "smith"), ("other", 0, "king")]
    made, files, ids = fitted(table, user_features=write(tmp_path / "users.csv", ("user_id", "age", "job"), rows))
    known = [float(AGES[user]) for user in ids.users if AGES.get(user, "").isdigit()]
    mean, std = np.mean(known), np.std(known)
    expected = []
    for user in ids.users:
        age, job = AGES.get(user, ""), JOBS.get(user, "")
        number = [(float(age) - mean) / std, 0.0] if age.isdigit() else [0.0, 1.0]
        expected.append(number + [float(job not in ("cook", "smith")), float(job == "cook"), float(job == "smith")])
    found = made.spec.facts["graph.user_features"]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))
    assert "graph.item_features" not in made.spec.facts and made.held_out.spec.facts is made.spec.facts
    columns = json.loads(files.files["user_columns.json"])["columns"]
    assert columns[0] == {"name": "age", "kind": "number", "mean": mean, "std": pytest.approx(std), "indicator": True}
    said = [text for word, text in made.notes if word == "user features"]
    assert said == [
        "6 users have a row of users.csv, by 'user_id'; 1 users have none, and all of theirs is missing; 2 rows of no "
        "user in training; 1 rows without an id; 1 rows of an id that has one before",
        "1 of numbers, 1 of categories, in a vector of 5: age, job",
        "5 cells missing: 0 after standardisation, or the place of unknown categories: job 3, age 2",
        "1 cell infinite or 1e6 deviations from the mean: read as missing: age 1",
    ]


def test_every_kind_of_file_and_every_spelling_of_ids_gives_the_same_features(tmp_path, table):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    price = {str(item): 0.5 * item for item in range(8)}
    rows = [(item, price[item], "ab"[int(item) % 2]) for item in price]
    expected, _, _ = fitted(table, item_features=write(tmp_path / "a.csv", ("itemId", "price", "kind"), rows))
    floats = [(f"{item}.0", *rest) for item, *rest in rows]
    write(tmp_path / "b.tsv", ("itemId", "price", "kind"), floats[::-1], "\t")
    write(tmp_path / "c.item", ("item:token", "price:float", "kind:token"), rows, "\t")
    columns = {"asin": [int(item) for item in price], "price": list(price.values()), "kind": [row[2] for row in rows]}
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")
    for name in ("b.tsv", "c.item", "d.parquet"):
        made, _, _ = fitted(table, item_features=str(tmp_path / name))
        assert torch.equal(made.spec.facts["graph.item_features"], expected.spec.facts["graph.item_features"]), name


def test_ids_of_64_bits_stay_apart(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    big = 2**60
    rows = [(big + user, item, user + item) for user in range(4) for item in range(6)]
    pq.write_table(pa.table(dict(zip(("user", "item", "time"), zip(*rows)))), tmp_path / "log.parquet")
    pq.write_table(pa.table({"user": [big + i for i in range(4)], "x": [1.0, 2.0, 4.0, 8.0]}), tmp_path / "u.parquet")
    made, _, ids = fitted(str(tmp_path / "log.parquet"), "random", user_features=str(tmp_path / "u.parquet"))
    assert ids.users == tuple(str(big + i) for i in range(4))
    assert len(made.spec.facts["graph.user_features"].unique()) == 4


def test_a_typed_header_says_what_numbers_are_and_a_cell_may_have_several_categories(tmp_path, table):
    genres = ["Crime Drama", "Drama", "", "Comedy Drama Comedy", "Crime", "War Comedy", "Drama", "Drama"]
    rows = [(i, 1990 + i % 2, genre) for i, genre in enumerate(genres)]
    path = write(tmp_path / "a.item", ("item_id:token", "year:token", "genre:token_seq"), rows, "\t")
    made, _, ids = fitted(table, item_features=path)
    words = ["Comedy", "Crime", "Drama", "War"]
    expected = []
    for item in ids.items:
        own = genres[int(item)].split()
        expected.append([0, int(item) % 2 == 0, int(item) % 2 == 1, not own, *(word in own for word in words)])
    assert torch.equal(made.spec.facts["graph.item_features"], torch.tensor(expected, dtype=torch.float32))
    again = vectors(path=path, holdout=0.0, ignore=["item_id"]).fit(Fitted())  # the same reader serves tables alone
    assert torch.equal(again.fetch(torch.arange(8))["vector"], torch.tensor(expected, dtype=torch.float32)[:8])


def test_a_run_keeps_its_features_and_reads_no_file_again(tmp_path, table):
    path = write(tmp_path / "users.csv", ("user", "x"), [(user, i) for i, user in enumerate(USERS)])
    made, files, _ = fitted(table, user_features=path)
    (tmp_path / "users.csv").unlink()
    trained = Fitted(files.files, complete=True)
    for keys in ({"user_features": path}, {}):
        again = interactions(path=table, split="time", part="validation", **keys).fit(trained)
        assert torch.equal(again.spec.facts["graph.user_features"], made.spec.facts["graph.user_features"])
    with pytest.raises(UserError, match=r"the run has no fitted/item_columns.json"):
        interactions(path=table, item_features=path).fit(trained)


def test_what_features_are_given_is_part_of_what_the_data_are(tmp_path, table):
    one = write(tmp_path / "x.csv", ("user", "item", "x"), [(user, i, i) for i, user in enumerate(USERS)])
    kinds = ({}, {"user_features": one}, {"item_features": one}, {"user_features": one, "item_features": one})
    found = [interactions(path=table, **keys).fingerprint() for keys in kinds]
    write(tmp_path / "x.csv", ("user", "item", "x"), [(user, i, 2 * i) for i, user in enumerate(USERS)])
    found.append(interactions(path=table, user_features=one).fingerprint())
    assert len(set(found)) == 5


ROWS = [(user, i) for i, user in enumerate(USERS)]
WRONG = {
    "absent": ("none.csv", None, {}, "none.csv cannot be read"),
    "suffix": ("u.npz", (("user", "x"), ROWS), {}, r"u.npz must end in .csv, .tsv, .parquet, .user, .item"),
    "empty": ("u.csv", (("user", "x"), []), {}, "u.csv has a header and no rows."),
    "no ids": ("u.csv", (("usr_id", "x"), ROWS), {}, "no column of ids: none of a usual name.* mean 'usr_id'?"),
    "named": ("u.csv", (("who", "x"), ROWS), {"user": "user"}, "no column of ids: neither 'user' nor a usual name"),
    "strangers": ("u.csv", (("user", "x"), [("U0", 1)]), {}, "no id in the column 'user' of .*, such as 'U0', is a us"),
    "ids alone": ("u.csv", (("user",), [(user,) for user in USERS]), {}, "no column beside 'user' and the ignored"),
    "constant": ("u.csv", (("user", "x", "y"), [(u, 1, "") for u in USERS]), {}, "every column .* constant or empty"),
    "mixed": ("u.csv", (("user", "x"), [*ROWS[1:], ("u0", "old")]), {}, r"'old' in the column 'x'.*categories=\[x\]"),
    "list": ("u.user", (("user:token", "x:float_seq"), ROWS), {}, "'x' is of the type 'float_seq', and these are rea"),
    "bad id": ("u.parquet", {"user": [0.5, 1.5], "x": [1, 2]}, {}, "a float that holds no whole number exactly"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_features_are_told_in_one_line(tmp_path, table, name):
    file, content, keys, message = WRONG[name]
    if isinstance(content, dict):
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table(content), tmp_path / file)
    elif content:
        write(tmp_path / file, *content, "\t" if file.endswith("user") else ",")
    with pytest.raises(UserError, match=message) as error:
        fitted(table, user_features=str(tmp_path / file), **keys)
    assert str(error.value).startswith("dataset.user_features: ") and "\n" not in str(error.value)


def test_columns_of_features_are_named_where_there_are_features(tmp_path, table):
    with pytest.raises(UserError, match=r"dataset.ignore says how features are read, and there are none"):
        interactions(path=table, ignore=["x"])
    path = write(tmp_path / "u.csv", ("user", "zip", "name"), [(user, 1 + i % 2, user) for i, user in enumerate(USERS)])
    made, _, _ = fitted(table, user_features=path, ignore=["name"], categories=["zip"])
    assert made.spec.facts["graph.user_features"].unique().tolist() == [0.0, 1.0]
    for key in ("ignore", "categories"):
        with pytest.raises(UserError, match=f"dataset.{key}: .*no column 'nmae'. Did you mean 'name'?"):
            fitted(table, user_features=path, **{key: ["nmae"]})
