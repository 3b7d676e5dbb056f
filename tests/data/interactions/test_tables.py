"""What tables of interactions may look like, and what is told of those that are wrong."""

import numpy as np
import pytest
import torch

from sslcli.data.interactions.ids import Ids
from sslcli.data.interactions.interactions import interactions
from sslcli.errors import UserError
from sslcli.run_dir.fitted import Fitted

ROWS = [
    (user, item, 1 + (user * item) % 5, (user * 5 + item * 3) % 17) for user in range(1, 9) for item in range(10, 18)
]


def write(path, rows=ROWS, header="user_id,item_id,rating,timestamp"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


def read(path, **keys):
    """The training pairs by ids, and the notes."""
    fitted = Fitted()
    made = interactions(path=str(path), **keys).fit(fitted)
    ids = Ids.of_file(fitted.files["ids.json"])
    columns = made.fetch(torch.arange(len(made)))
    items = (columns["item"] - len(ids.users)).tolist()
    return {(ids.users[u], ids.items[i]) for u, i in zip(columns["user"].tolist(), items)}, dict(made.notes)


def test_all_formats_and_spellings_of_ids_are_one_data_set(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    expected, _ = read(write(tmp_path / "a.csv"))
    floats = [(f"{user}.0", f' "{item}"'.strip(), *rest) for user, item, *rest in ROWS]
    inter = "\n".join("\t".join(map(str, row)) for row in [("user_id:token", "item_id:token", "timestamp:float"),
                                                           *((u, i, t) for u, i, _, t in ROWS)])  # fmt: skip
    (tmp_path / "b.inter").write_text(inter + "\n")
    columns = [list(column) for column in zip(*ROWS)]
    for name, user in (("i", pa.array(columns[0], pa.int32())), ("f", pa.array(columns[0], pa.float64())),
                       ("s", pa.array(map(str, columns[0])).dictionary_encode())):  # fmt: skip
        table = pa.table({"userId": user, "movieId": columns[1], "date": pa.array(columns[3], pa.timestamp("s"))})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    paths = [write(tmp_path / "c.csv", floats), tmp_path / "b.inter", *tmp_path.glob("*.parquet")]
    assert len(paths) == 5
    for path in paths:
        assert read(path)[0] == expected, path
        assert read(path, split="time")[0] == read(tmp_path / "a.csv", split="time")[0], path


def test_ids_of_64_bits_stay_apart(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    big = 2**60
    table = pa.table({"user": [big + u for u, *_ in ROWS], "item": [i for _, i, *_ in ROWS]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert {user for user, _ in read(tmp_path / "a.parquet")[0]} == {str(big + u) for u in range(1, 9)}


def test_texts_stay_as_they_are(tmp_path):
    rows = [(f"0{user}", f"{item}.5" if item == 10 else f"{item}.0", 1, 0) for user, item, *_ in ROWS]
    found, notes = read(write(tmp_path / "a.csv", rows))
    assert "ids" not in notes and {user for user, _ in found} == {f"0{user}" for user in range(1, 9)}
    assert {item for _, item in found} == {"10.5", *(f"{item}.0" for item in range(11, 18))}  # not all are whole


def test_numbers_among_names_are_told(tmp_path):
    rows = [*ROWS, *(("user_id", item, 1, 0) for item in range(10, 18))]
    found, notes = read(write(tmp_path / "a.csv", rows))
    assert {user for user, _ in found} == {*map(str, range(1, 9)), "user_id"}
    assert notes["ids"] == "of users 8 whole numbers and 1 others, such as 'user_id'"


def test_dates_are_times(tmp_path):
    rows = [(u, i, r, f"2026-03-{1 + t % 28:02d}T{t % 24:02d}:00:00Z") for u, i, r, t in ROWS]
    numbers = [(u, i, r, (1 + t % 28) * 24 + t % 24) for u, i, r, t in ROWS]
    dated, counted = write(tmp_path / "a.csv", rows), write(tmp_path / "b.csv", numbers)
    assert read(dated, split="time")[0] == read(counted, split="time")[0]


def test_what_is_left_out_is_counted_and_a_core_is_that_of_a_loop(tmp_path):
    rng = np.random.default_rng(0)
    rows = [tuple(map(int, row)) for row in (rng.random((600, 4)) ** 2 * [40, 40, 5, 50]).tolist()]
    rows += [("", 1, 5, 1), ("NaN", 1, 5, 1), (1, "", 5, 1), (1, 2, 5, ""), (1, 2, "", 3)]
    _, notes = read(write(tmp_path / "a.csv", rows), min_rating=2, core=3)
    whole = [row for row in rows if "" not in row and row[0] != "NaN"]
    kept = {(user, item) for user, item, rating, _ in whole if rating >= 2}
    low = sum(rating < 2 for *_, rating, _ in whole)
    twice = sum(rating >= 2 for *_, rating, _ in whole) - len(kept)
    left = set(kept)
    while True:
        bad = [p for p in left if min(sum(q[k] == p[k] for q in left) for k in (0, 1)) < 3]
        if not bad:
            break
        left -= set(bad)
    assert notes["left out"] == (
        f"2 without a user, 1 without an item, 1 without a time, 1 without a rating, {low} rated below 2, "
        f"{twice} all but the first by time of pairs that are there twice, {len(kept) - len(left)} outside of the "
        f"3-core; {len(left)} interactions are left"
    )
    assert 0 < len(left) < len(kept) and low and twice


WRONG = {
    "empty": ("", {}, "a.csv is empty."),
    "header": ("user_id,item_id\n", {}, "a.csv has a header and no rows."),
    "no user": ("usr,item_id\n1,2\n", {}, "dataset.user: .* has no column of a usual name. .* Did you mean 'usr'?"),
    "no item": ("user_id,thing\n1,2\n", {}, "dataset.item: .* dataset.item=COLUMN. Known: thing, user_id."),
    "named": ("user_id,item_id\n1,2\n", {"item": "item"}, "no column 'item'. Did you mean 'item_id'?"),
    "no time": ("user_id,item_id\n1,2\n1,3\n2,2\n", {"split": "time"}, "dataset.split=time needs times"),
    "time": (None, {"time": "rating"}, "dataset.time: .*line 2 has 'five' in the column 'rating', and times are n"),
    "rating": (None, {"min_rating": 1, "time": "none"}, "dataset.rating: .*line 2 has 'five'"),
    "no rating": ("user_id,item_id\n1,2\n1,3\n2,2\n", {"min_rating": 1}, "dataset.min_rating: .* no column of ratings"),
    "low": (ROWS, {"min_rating": 9}, "dataset.min_rating: none of the 64 rows .* 64 rated below 9"),
    "core": (ROWS, {"core": 9}, "dataset.core: no user and item .* 9 interactions or more each, of 64"),
    "one user": ([(1, i, 1, 1) for i in range(9)], {}, "dataset.user: .* has one user only"),
    "one item": ([(u, 1, 1, 1) for u in range(9)], {}, "dataset.item: .* has one item only"),
    "few": ([(u, u % 5, 1, 1) for u in range(9)], {}, "no user of .* has 3 interactions or more"),
    "no ids": ([("", i, 1, 1) for i in range(9)], {}, "none of the 9 rows of .* is left: 9 without a user"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_told_in_one_line(tmp_path, name):
    rows, keys, message = WRONG[name]
    path = tmp_path / "a.csv"
    if isinstance(rows, str):
        path.write_text(rows)
    else:
        write(path, rows or [(1, 2, "five", "x"), *ROWS])
    with pytest.raises(UserError, match=message) as error:
        interactions(path=str(path), **keys)
    assert "\n" not in str(error.value) and len(str(error.value)) - len(str(path)) < 260


def split_file(path, **arrays):
    np.savez(path, **{key: np.array(pairs) for key, pairs in arrays.items()})
    return str(path)


def test_a_split_of_somebody_elses(tmp_path):
    path = write(tmp_path / "a.csv")
    train = [(u, i) for u, i, *_ in ROWS if i > 12] + [(99, 1)]
    test = [(u, 10) for u in range(1, 9)]
    for name, convert in (("numbers", int), ("texts", str), ("bytes", lambda number: str(number).encode())):
        arrays = {
            key: [tuple(map(convert, pair)) for pair in pairs] for key, pairs in (("train", train), ("test", test))
        }
        arrays["train"] += [(convert(1), convert(10))] if name == "numbers" else [(convert(1), convert(11))]
        file = split_file(tmp_path / f"{name}.npz", **arrays)
        if name == "numbers":
            with pytest.raises(UserError, match="user '1' with item '10' in two parts, test and another"):
                read(path, split_from=file)
        else:
            with pytest.raises(UserError, match="no test pair has a user and an item that training knows"):
                read(path, split_from=file)
            arrays["train"] += [(convert(2), convert(10))]
            arrays["test"] = [pair for pair in arrays["test"] if pair != (convert(2), convert(10))]
            found, notes = read(path, split_from=split_file(tmp_path / f"{name}.npz", **arrays))
            assert found == {(str(u), str(i)) for u, i in train if u != 99} | {("1", "11"), ("2", "10")}
            assert notes["split"] == (
                f"as {name}.npz says: train 42, validation 0, test 7; 1 pairs of {name}.npz are not in the data; "
                "15 interactions are in no part and left out"
            )
            with pytest.raises(UserError, match="dataset.part=validation: no interaction is in this part"):
                read(path, split_from=file, part="validation")


def test_a_wrong_split_file_is_told_in_one_line(tmp_path):
    path = write(tmp_path / "a.csv")
    pairs = [(u, i) for u, i, *_ in ROWS]
    np.savez(tmp_path / "objects.npz", train=np.array([("a", 1)], object), test=np.array([("a", 1)], object))
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", np.array(pairs))
    for name, arrays, message in (
        ("valid.npz", {"train": pairs, "valdi": pairs}, "an array 'valdi'. Did you mean 'valid'?"),
        ("test.npz", {"train": pairs}, "has no array 'test'. It has: train."),
        ("shape.npz", {"train": [1, 2], "test": [3]}, r"int64 of shape \[2\], and pairs are \(N, 2\)"),
        ("half.npz", {"train": [(1.5, 2)], "test": [(1, 2)]}, "a float that holds no whole number exactly"),
        ("others.npz", {"train": [(70, 80)], "test": [(1, 2)]}, "none of the pairs in 'train' .* is in the data"),
        ("objects.npz", None, "holds Python objects, which are never unpickled"),
        ("text.npz", None, "is no array of NumPy|holds Python objects"),
        ("one.npy", None, "is one array"),
        ("absent.npz", None, "cannot be read"),
    ):
        if arrays is not None:
            split_file(tmp_path / name, **arrays)
        with pytest.raises(UserError, match=message) as error:
            read(path, split_from=str(tmp_path / name))
        assert str(error.value).startswith("dataset.split_from: ") and "\n" not in str(error.value)


def test_other_data_are_read_by_the_run_numbers_and_leak_nothing(tmp_path):
    fitted = Fitted()
    interactions(path=write(tmp_path / "a.csv"), seed=0).fit(fitted)
    ids = Ids.of_file(fitted.files["ids.json"])
    trained = Fitted(fitted.files, complete=True)
    rows = [*ROWS, *((u, 999, 5, 500) for u in range(1, 9)), *((77, i, 5, 1) for i in range(10, 16))]
    other = interactions(path=write(tmp_path / "b.csv", rows), seed=1).fit(trained)
    asked = other.held_out.rankings
    edges = {tuple(pair) for pair in other.spec.facts["graph.edges"].T.tolist()}
    for row, user in enumerate(asked.users.tolist()):
        relevant = {(user, item + len(ids.users)) for item in asked.relevant.row(row).tolist()}
        assert relevant and not relevant & edges
        seen = {(user, item + len(ids.users)) for item in asked.seen.row(row).tolist()}
        assert {edge for edge in edges if edge[0] == user} <= seen and not relevant & seen
    assert "pairs that the run was trained on" in asked.protocol and "users whom training never saw" in asked.protocol
    strangers = [(f"s{u}", f"t{i}", r, t) for u, i, r, t in ROWS]
    with pytest.raises(UserError, match="no training pair has a user and an item that training knows: it has user 's"):
        interactions(path=write(tmp_path / "c.csv", strangers)).fit(trained)
