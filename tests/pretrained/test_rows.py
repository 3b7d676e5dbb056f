"""Raw rows of a table become the vectors that the dataset makes of the same rows of its file."""

import csv

import numpy as np
import pytest
import torch

import sslcli
from sslcli.data.vectors.vectors import vectors
from sslcli.errors import UserError
from sslcli.pretrained.samples import as_column
from sslcli.run_dir.fitted import Fitted

HEADER = ["age", "zip", "colour", "flat", "label"]


@pytest.fixture
def table(tmp_path):
    """The path of a table, its vectors in the order of the file, its field and what was fitted."""
    rng = np.random.default_rng(0)
    rows = [
        [
            ["-", f"{rng.normal(40, 9):.2f}"][i % 9 > 0],
            ["01", "02", "10"][i % 3],
            ["red", "green", "blue"][i % 3],
            1,
            "ab"[i % 2],
        ]
        for i in range(90)
    ]
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    raw, files = vectors(path=str(path), categories=["zip"], missing=["-"]), Fitted()
    made = raw.fit(files)
    x = torch.empty(90, made.spec["vector"].shape[0])
    for part, index in zip((made, made.held_out), raw.parts):
        x[index] = part.fetch(torch.arange(len(part)))["vector"]
    return path, x, made.spec["vector"], Fitted(files.files, complete=True)


def test_dicts_lists_and_arrays_are_read_as_the_file_is(table):
    path, expected, field, fitted = table
    with path.open(newline="") as file:
        dicts = list(csv.DictReader(file))
    lists = [[row[name] for name in HEADER[:-1]] for row in dicts]
    for samples in (dicts, lists, np.array(lists, object), np.array(lists)):
        assert torch.equal(as_column(samples, "vector", field, fitted), expected)
    one = as_column(dicts[3], "vector", field, fitted)
    assert torch.equal(one, expected[3:4]) and torch.equal(as_column(lists[3], "vector", field, fitted), one)
    typed = [{"age": float(dicts[3]["age"]), "zip": "01", "colour": "red"}, {"age": None, "zip": "10", "colour": None}]
    found = as_column(typed, "vector", field, fitted)
    assert torch.equal(found[0], expected[3]) and found[1, :2].tolist() == [0, 1]


def test_numbers_are_read_as_the_file_is():
    raw, files = vectors(name="wine"), Fitted()
    made = raw.fit(files)
    from sklearn.datasets import load_wine

    x = load_wine().data[raw.parts[0]]
    found = as_column(x, "vector", made.spec["vector"], Fitted(files.files, complete=True))
    assert torch.equal(found, made.fetch(torch.arange(len(made)))["vector"])


def test_what_the_run_does_not_know_is_said(table):
    _, _, field, fitted = table
    good = {"age": 3, "zip": "01", "colour": "red"}
    bad = {"agee": 3, "zip": "01", "colour": "red"}
    with pytest.warns(UserWarning, match="2 of the cells have an unknown category or an infinite number"):
        as_column([{**good, "colour": "violet"}, {**good, "age": float("inf")}], "vector", field, fitted)
    for samples, said in (
        ([], "no rows"),
        (
            [good, bad],
            r"row 1 has no column 'age'.*Did you mean 'agee'",
        ),
        ([[1, 2]], "row 0 has 2 values, and the run's table 4 columns: age, zip, colour"),
        ([{**good, "age": "old"}], "row 0 has 'old' in the column 'age'"),
    ):
        with pytest.raises(UserError, match=said):
            as_column(samples, "vector", field, fitted)


def test_a_trained_run_takes_rows_and_counts_what_it_does_not_know(run, tmp_path):
    rows = [f"{i % 17},{i * i % 13},{'pq'[i % 3 // 2]},{'ab'[i % 2]}" for i in range(80)]
    for name, word in (("t", "p"), ("other", "new")):
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y,c,label", *rows]).replace(",p,", f",{word},"))
    small = ("train.steps=2", "train.batch_size=16", "probe=none", "log.report=false", "run_dir=r")
    code, out, err = run("dataset=vectors", "dataset.path=t.csv", "encoder=mlp", "encoder.hidden_dim=8", *small)
    assert code == 0 and "views scarf" in out, err
    model = sslcli.load("r")
    found = model([{"x": 3, "y": 9, "c": "q"}, {"x": 4, "y": 3, "c": "p"}])
    assert found.shape == (2, 8) and torch.equal(found, model(np.array([[3, 9, "q"], [4, 3, "p"]])))
    with pytest.raises(UserError, match="row 0 has no column 'y'"):
        model({"x": 3})
    code, _, err = run("run=r", "probe=none", "dataset.path=none.csv", command="eval")
    assert code == 2 and "No such file" in err
    code, out, err = run("run=r", "probe=knn", "dataset.path=other.csv", command="eval")
    assert code == 0 and "unknown   54 cells with a category that has no place of its own: c 54" in out, err
    code, out, _ = run("run=r", "probe=knn", command="eval")
    assert code == 0 and "unknown" not in out
