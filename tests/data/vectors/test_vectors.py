"""Rows of a table as vectors: against scikit-learn's scaler and encoder, and the same split in any order of rows."""

import json

import numpy as np
import pytest
import torch
from sklearn import datasets as scikit
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sslcli.data.vectors.vectors import GROUPS, SAMPLE, vectors
from sslcli.errors import UserError
from sslcli.run_dir.fitted import Fitted

HEADER = "age,income,colour,flat,name,label"


def table_rows(count=400):
    rng = np.random.default_rng(0)
    return [
        f"{rng.normal(40, 9):.2f},{1e9 + rng.integers(0, 999)},{['red', 'green', 'blue'][i % 3]},1,n{i},{'ab'[i % 2]}"
        for i in range(count)
    ]


def write(path, rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def content(dataset):
    """The rows of a dataset in an order of their own."""
    (column,) = dataset.fetch(torch.arange(len(dataset))).values()
    return torch.tensor(sorted(column.tolist()))


@pytest.fixture
def made(tmp_path):
    return vectors(path=write(tmp_path / "t.csv", table_rows())).fit(Fitted())


def test_numbers_are_standardised_and_categories_one_hot_on_the_training_part(tmp_path):
    raw = vectors(path=write(tmp_path / "t.csv", table_rows()))
    made = raw.fit(Fitted())
    cells = np.array([row.split(",") for row in table_rows()], object)
    train, held_out = raw.parts
    scaler = StandardScaler().fit(cells[train, :2].astype(float))
    encoder = OneHotEncoder(sparse_output=False).fit(cells[train, 2:3])
    for part, index in ((made, train), (made.held_out, held_out)):
        numbers = scaler.transform(cells[index, :2].astype(float))
        known = encoder.transform(cells[index, 2:3])
        expected = np.concatenate([numbers, np.zeros((len(index), 1)), known], 1)  # the place of unknown ones is empty
        np.testing.assert_allclose(part.fetch(torch.arange(len(part)))["vector"].numpy(), expected, atol=1e-6)
        assert [part.classes[i] for i in part.labels] == cells[index, 5].tolist()
    said = dict(made.notes)
    assert "2 of numbers, 1 of categories, in a vector of 6: age, income, colour" in said["columns"]
    assert ("left out", "constant: flat") in made.notes and ("left out", "no text twice: name") in made.notes
    assert made.spec.facts[GROUPS].tolist() == [0, 1, 2, 2, 2, 2]


def test_the_split_is_the_same_whatever_the_order_and_copies_are_on_one_side(tmp_path):
    rows = table_rows()
    order = np.random.default_rng(1).permutation(len(rows))
    copied = [f"{row.rpartition(',')[0]},{'ba'['ab'.index(row[-1])]}" for row in rows[:50]]  # with the other label
    one = vectors(path=write(tmp_path / "a.csv", rows))
    shuffled = vectors(path=write(tmp_path / "b.csv", [rows[i] for i in order]))
    doubled = vectors(path=write(tmp_path / "c.csv", [*rows, *copied, *rows]))
    parts = [set(np.array(rows)[index]) for index in one.parts]
    assert [set(np.array(rows)[order][index]) for index in shuffled.parts] == parts
    assert 0.15 < len(one.parts[1]) / len(rows) < 0.25
    names = [{row.split(",")[4] for row in part} for part in parts]
    whole = np.array([*rows, *copied, *rows])
    assert [{row.split(",")[4] for row in whole[index]} for index in doubled.parts] == names
    assert "450 rows are copies" in dict(doubled.notes)["split"]
    first, second = one.fit(Fitted()), shuffled.fit(Fitted())
    torch.testing.assert_close(content(first), content(second))
    torch.testing.assert_close(content(first.held_out), content(second.held_out))
    torch.testing.assert_close(first.spec.facts[SAMPLE], second.spec.facts[SAMPLE])


def test_the_held_out_part_changes_nothing_that_is_fitted(tmp_path):
    rows = table_rows()
    one = vectors(path=write(tmp_path / "a.csv", rows))
    files, other = Fitted(), Fitted()
    one.fit(files)
    fewer = [rows[i] for i in sorted([*one.parts[0], *one.parts[1][:5]])]
    vectors(path=write(tmp_path / "b.csv", fewer)).fit(other)
    before, after = (json.loads(each.files["columns.json"])["columns"] for each in (files, other))
    for a, b in zip(before, after, strict=True):
        assert a == {**b, **{key: pytest.approx(b[key], rel=1e-12) for key in ("mean", "std") if key in b}}


def test_missing_infinite_and_unknown_cells_are_counted_and_read_by_a_rule(tmp_path):
    rows = table_rows(60)
    rows = [*rows, *(f"{age},5,{colour},1,x{i},a" for i, (age, colour) in enumerate([("", "red"), ("inf", "?")]))]
    split = [f"{row},train" for row in rows] + ["41,NA,violet,1,y,b,test", "1e300,3,red,1,z,b,test"]
    made = vectors(path=write(tmp_path / "t.csv", split, f"{HEADER},part"), split="part").fit(Fitted())
    x = made.fetch(torch.tensor([60, 61]))["vector"]
    assert x[:, :2].tolist() == [[0, 1], [0, 1]]  # the mean, and a number that says so
    assert x[1, 3:].tolist() == [1, 0, 0, 0]
    x = made.held_out.fetch(torch.tensor([0, 1]))["vector"]
    assert x[0, 2:].tolist() == [0, 1, 0, 0, 0]  # income misses nothing in training, so it has no second number
    assert x[1, :2].tolist() == [0, 1]
    said = [text for word, text in made.notes if word in ("missing", "unknown")]
    assert any("3 cells" in t and "income 1" in t and "age 1" in t for t in said)
    assert any("2 cells" in t and "infinite" in t and "age 2" in t for t in said)
    assert any("1 cell" in t and "colour 1" in t for t in said)


def test_a_split_column_names_the_parts(tmp_path):
    rows = [f"{row},{['train', 'train', 'val', 'test'][i % 4]}" for i, row in enumerate(table_rows(80))]
    path = write(tmp_path / "t.csv", rows, f"{HEADER},part")
    made = vectors(path=path, split="part").fit(Fitted())
    assert (len(made), len(made.held_out)) == (40, 20)
    assert ("split", "by the column 'part': train 40, validation 20, test 20") in made.notes
    drawn = vectors(path=path, split="part", holdout=0.5).fit(Fitted())
    assert len(drawn) + len(drawn.held_out) == 40 and 10 < len(drawn.held_out) < 30


def test_only_labelled_rows_are_held_out(tmp_path):
    rows = [row if i < 100 else f"{row[:-1]}" for i, row in enumerate(table_rows())]
    raw = vectors(path=write(tmp_path / "t.csv", rows))
    made = raw.fit(Fitted())
    assert raw.parts[1].max() < 100 and 10 < len(made.held_out) < 30
    assert (made.labels < 0).sum() == 300 and (made.held_out.labels >= 0).all()


@pytest.mark.parametrize("suffix", ["parquet", "npy", "npz", "tsv", "semicolons"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, suffix):
    x, y = scikit.load_wine(return_X_y=True)
    names = [f"{j}" for j in range(x.shape[1])]
    header, rows = [*names, "label"], [[*map(repr, row.tolist()), str(label)] for row, label in zip(x, y)]
    (tmp_path / "t.csv").write_text("\n".join(",".join(row) for row in (header, *rows)))
    expected = vectors(path=str(tmp_path / "t.csv")).fit(Fitted())
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({**{n: x[:, j] for j, n in enumerate(names)}, "label": y}), path)
    elif suffix == "npy":
        np.save(path, x)
    elif suffix == "npz":
        np.savez(path, x=x, label=y)
    else:
        path = path if suffix == "tsv" else tmp_path / "s.csv"
        path.write_text("\n".join(("\t" if suffix == "tsv" else ";").join(row) for row in (header, *rows)))
    made = vectors(path=str(path), holdout=0.2).fit(Fitted())
    for one, other in ((made, expected), (made.held_out, expected.held_out)):
        assert torch.equal(*(each.fetch(torch.arange(len(each)))["vector"] for each in (one, other)))
        assert suffix == "npy" or (one.labels.tolist(), one.classes) == (other.labels.tolist(), ("0", "1", "2"))


def test_an_ignored_column_may_be_of_any_kind(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    dates = pa.array(range(40), pa.timestamp("s"))
    pq.write_table(pa.table({"x": range(40), "date": dates, "list": [[i] for i in range(40)]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"the column 'date' of .* or set dataset.ignore=\[date\]"):
        vectors(path=str(tmp_path / "t.parquet"))
    made = vectors(path=str(tmp_path / "t.parquet"), ignore=["date", "list"]).fit(Fitted())
    assert made.spec["vector"].shape == (1,)


@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer"])
def test_the_sets_of_scikit_learn(name):
    made = vectors(name=name).fit(Fitted())
    found = getattr(scikit, f"load_{name}")()
    counts = np.bincount(torch.cat([made.labels, made.held_out.labels]).numpy())
    expected = {str(c): n for c, n in zip(found.target_names, np.bincount(found.target))}
    assert dict(zip(made.classes, counts.tolist())) == expected
    x = made.fetch(torch.arange(len(made)))["vector"]
    torch.testing.assert_close(x.mean(0), torch.zeros(x.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.var(0, correction=0), torch.ones(x.shape[1]), atol=1e-3, rtol=0)


def test_categories_beyond_the_most_frequent_are_unknown(tmp_path):
    rows = [f"{i % 7},{'z' if i % 2 else f'{i % 5}x'}" for i in range(200)]
    files = Fitted()
    made = vectors(path=write(tmp_path / "t.csv", rows, "n,c"), max_categories=2, categories=["n"]).fit(files)
    n, c = json.loads(files.files["columns.json"])["columns"]
    assert len(n["values"]) == len(c["values"]) == 2 and "z" in c["values"]
    assert made.spec.facts[GROUPS].tolist() == [0, 0, 0, 1, 1, 1] and "unknown" in dict(made.notes)
    assert made.fetch(torch.arange(len(made)))["vector"].sum(1).tolist() == [2.0] * len(made)
