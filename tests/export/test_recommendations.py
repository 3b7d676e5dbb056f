"""Exported vectors and lists of users and items, by raw ids: equal to the probe's ranking and to ``sslcli.load``."""

import csv
import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.helpers import compose

import sslcli
from sslcli.commands.train import run as train
from sslcli.errors import UserError

USERS, ITEMS = 24, 18
COMMON = ("device=cpu", "log.report=false", "train.steps=6", "train.batch_size=16", "train.precision=fp32",
          "probe.k=[4]")  # fmt: skip


def trained(folder, *options):
    """A run of six steps on a table of two tastes, in which ids are texts with commas and quotes."""
    draw, rows = random.Random(0), []
    for user in range(USERS):
        own = [item for item in range(ITEMS) if item % 2 == user % 2]
        items = draw.sample(own, 6) + draw.sample(range(ITEMS), 3)
        rows += [(f'user "{user}"', f"item, {item}", draw.randrange(10**6)) for item in items]
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("user", "item", "time"), *rows])
    options = ("dataset=interactions", f"dataset.path={folder / 'log.csv'}", "probe=ranking", *options, *COMMON)
    train(compose(*options), folder / "r")
    return folder / "r"


@pytest.fixture(scope="module")
def nodes_run(tmp_path_factory):
    options = ("encoder=nodes", "encoder.dim=8", "objective=bpr", "views=nodes")
    return trained(tmp_path_factory.mktemp("nodes"), *options)


@pytest.fixture(scope="module")
def history_run(tmp_path_factory):
    options = ("dataset.sample=history", "dataset.length=5", "dataset.split=leave_one_out", "encoder=history",
               "encoder.hidden_dim=8", "encoder.depth=1", "objective=next_item", "views=history")  # fmt: skip
    return trained(tmp_path_factory.mktemp("history"), *options)


@pytest.fixture(params=["nodes", "history"])
def trained_run(request):
    return request.getfixturevalue(f"{request.param}_run")


def export(run, *options):
    code, out, err = run(*options, command="export")
    assert code == 0, err
    return out


def ids_of(folder):
    return json.loads((folder / "fitted" / "ids.json").read_text())


def split_of(folder):
    """The items of each user in training, and those that are asked for, by raw ids, from the run's data."""
    state = sslcli.components.open_run(str(folder))[1]
    fitted = state["fitted"]
    dataset = sslcli.components.build_dataset(state["config"]).fit(fitted)
    ids, rankings = ids_of(folder), dataset.held_out.rankings
    names = [ids["users"][u] for u in rankings.users.tolist()]
    seen, asked = (
        {name: [ids["items"][i] for i in lists.row(q).tolist()] for q, name in enumerate(names)}
        for lists in (rankings.seen, rankings.relevant)
    )
    return seen, asked


@pytest.mark.parametrize("table", ["csv", "parquet"])
def test_recall_of_the_exported_lists_is_the_probes_number(run, tmp_path, trained_run, table):
    out = export(run, f"run={trained_run}", "format=recommendations", "format.k=4", f"format.table={table}",
                 f"output=top.{table}")  # fmt: skip
    assert f"{USERS} users matched, 0 missing" in out
    path = tmp_path / f"top.{table}"
    rows = list(csv.DictReader(path.open(newline=""))) if table == "csv" else pq.read_table(path).to_pylist()
    lists: dict[str, list[str]] = {}
    for row in rows:
        assert int(row["rank"]) == len(lists.setdefault(row["user"], [])) + 1
        lists[row["user"]].append(row["item"])
    seen, asked = split_of(trained_run)
    assert set(lists) == set(ids_of(trained_run)["users"])
    assert all(not {*items} & {*seen[user]} for user, items in lists.items())
    recall = np.mean([len({*lists[user]} & {*items}) / len(items) for user, items in asked.items()])
    metrics = json.loads((trained_run / "result.json").read_text())["metrics"]
    assert recall == pytest.approx(metrics["recall_at_4"]["value"]) and 0 < recall < 1
    scores = np.array([float(row["score"]) for row in rows]).reshape(USERS, 4)
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("table", ["parquet", "numpy"])
def test_users_and_items_have_a_row_each_by_raw_id(run, tmp_path, trained_run, table):
    suffix = {"parquet": "parquet", "numpy": "npy"}[table]
    options = ("format=embeddings", f"format.table={table}", f"output=e.{suffix}")
    assert f"{USERS + ITEMS} users and items matched" in export(run, f"run={trained_run}", *options)
    if table == "parquet":
        found = pq.read_table(tmp_path / "e.parquet").to_pydict()
    else:
        array = np.load(tmp_path / "e.npy")
        found = {name: array[name].tolist() for name in array.dtype.names}
    ids = ids_of(trained_run)
    assert found["kind"] == ["user"] * USERS + ["item"] * ITEMS and found["id"] == ids["users"] + ids["items"]
    encoder = sslcli.load(str(trained_run))
    vectors = np.array(found["vector"])
    np.testing.assert_allclose(vectors[USERS:], encoder.encoder.item_vectors().detach(), rtol=1e-6)
    if encoder.views.field == "user":
        np.testing.assert_allclose(vectors[:USERS], encoder(ids["users"]).detach(), rtol=1e-6)


def test_a_run_names_the_export_of_lists_as_what_comes_next(trained_run):
    assert f"ssl-export run={trained_run} format=recommendations" in (trained_run / "train.log").read_text()


def test_a_model_takes_raw_ids(nodes_run):
    encoder, ids = sslcli.load(str(nodes_run)), ids_of(nodes_run)
    table = encoder(torch.arange(USERS))
    assert torch.equal(encoder(ids["users"][7]), table[7:8])
    assert torch.equal(encoder(ids["users"][3:5]), table[3:5])
    assert torch.equal(encoder(np.array(ids["users"][3:5])), table[3:5])
    assert torch.equal(encoder([ids["items"][2]], field="item"), encoder.encoder.item_vectors()[2:3])
    with pytest.raises(UserError, match=r"user: training never saw 2 of these ids \('nobody', '7'\). It knows 24"):
        encoder([ids["users"][0], "nobody", 7, "nobody"])


def test_a_history_is_a_list_of_raw_ids_and_need_be_of_no_user(history_run):
    encoder, items = sslcli.load(str(history_run)), ids_of(history_run)["items"]
    pad = USERS + ITEMS
    nodes = torch.tensor([[USERS + 4, USERS + 2, pad, pad, pad], [USERS + i for i in (9, 8, 7, 6, 5)]])
    found = encoder([[items[4], items[2]], [items[i] for i in (0, 9, 8, 7, 6, 5)]])  # the last five are read
    torch.testing.assert_close(found, encoder(nodes))
    assert torch.equal(encoder([items[4], items[2]]), found[:1]) or torch.allclose(
        encoder([items[4], items[2]]), found[:1]
    )
    with pytest.raises(UserError, match=r"history: training never saw 1 of these ids \('item, 99'\)"):
        encoder([[items[0], "item, 99"]])


def test_a_file_of_histories_gets_lists_without_what_it_has(run, tmp_path, history_run):
    items = ids_of(history_run)["items"]
    histories = {"new": [items[3], items[1], items[3]], "ann": [items[5], "never seen"], "bob": ["never seen"]}
    with (tmp_path / "h.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("item", "user"), *((i, u) for u, row in histories.items() for i in row)])
    out = export(run, f"run={history_run}", "format=recommendations", f"format.k={ITEMS}", "format.histories=h.csv",
                 "output=top.csv")  # fmt: skip
    assert "2 rows with items that training never saw are left out; 1 users without any other item get no list" in out
    rows = list(csv.DictReader((tmp_path / "top.csv").open(newline="")))
    encoder = sslcli.load(str(history_run))
    for user, known in (("new", [3, 1, 3]), ("ann", [5])):
        scores = (encoder([[items[i] for i in known]]) @ encoder.encoder.item_vectors().T)[0]
        order = [i for i in scores.argsort(descending=True).tolist() if i not in known]
        found = [row for row in rows if row["user"] == user]
        assert [row["item"] for row in found] == [items[i] for i in order]
        assert [float(row["score"]) for row in found] == pytest.approx(scores[order].tolist(), rel=1e-4, abs=1e-6)
    assert {row["user"] for row in rows} == {"new", "ann"}


def test_what_cannot_be_recommended_is_told_in_one_line(run, tmp_path, nodes_run, history_run):
    (tmp_path / "h.csv").write_text("user,thing\na,b\n")
    (tmp_path / "n.csv").write_text("user,item\na,b\n")
    for folder, options, said in (
        (nodes_run, ("format=recommendations", "format.histories=h.csv"), "knows its own users only"),
        (history_run, ("format=recommendations", "format.histories=h.csv"), "h.csv has no column 'item'"),
        (history_run, ("format=recommendations", "format.histories=n.csv"), "no item in n.csv is one of the run's"),
        (history_run, ("format=recommendations", "format.histories=none.csv"), "none.csv cannot be read"),
        (nodes_run, ("format=embeddings", "format.split=train"), "has no such part"),
    ):
        code, _, err = run(f"run={folder}", *options, command="export")
        assert code == 2 and said in err and len(err.strip().splitlines()) <= 2, err


@pytest.mark.slow
def test_towers_know_the_features_of_their_users_and_items_without_the_files(run, tmp_path):
    """Vectors by raw ids, lists and metrics are the run's own; without ids, equal features have equal vectors."""
    for name, count in (("user", USERS), ("item", ITEMS)):
        names = [f'{name} "{i}"' if name == "user" else f"item, {i}" for i in range(count)]
        with (tmp_path / f"{name}s.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [(name, "taste", "x"), *((text, "ab"[i % 2], i // 4) for i, text in enumerate(names))]
            )
    options = (f"dataset.{name}_features={tmp_path}/{name}s.csv" for name in ("user", "item"))
    folder = trained(tmp_path, "encoder=towers", "encoder.ids=false", "encoder.std=1", *options)
    assert (folder / "fitted" / "item_columns.json").is_file()
    for name in ("users.csv", "items.csv"):
        (tmp_path / name).unlink()
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    code, _, err = run(f"run={folder}", "probe=ranking", "probe.k=[4]", command="eval")
    assert code == 0, err
    again = json.loads((folder / "eval.json").read_text())["metrics"]
    assert again["recall_at_4"]["value"] == metrics["recall_at_4"]["value"]
    encoder, ids = sslcli.load(str(folder)), ids_of(folder)
    users = encoder(ids["users"])
    place = {text: i for i, text in enumerate(ids["users"])}
    equal = users[place['user "0"']], users[place['user "2"']], users[place['user "1"']]
    assert torch.equal(equal[0], equal[1]) and not torch.equal(equal[0], equal[2])
    export(run, f"run={folder}", "format=recommendations", "format.k=4", "output=top.csv")
    rows = list(csv.DictReader((tmp_path / "top.csv").open(newline="")))
    seen, asked = split_of(folder)
    lists = {user: {row["item"] for row in rows if row["user"] == user} for user in ids["users"]}
    assert not any(lists[user] & {*seen[user]} for user in asked)
    assert {len(items) for items in lists.values()} == {4}
    export(run, f"run={folder}", "format=embeddings", "output=e.parquet")
    vectors = np.array(pq.read_table(tmp_path / "e.parquet")["vector"].to_pylist())
    np.testing.assert_allclose(vectors[:USERS], users.detach(), rtol=1e-6)
    np.testing.assert_allclose(vectors[USERS:], encoder.encoder.item_vectors().detach(), rtol=1e-6)


def test_an_evaluation_that_wants_labels_ranks(run, trained_run):
    """The default probe of ``ssl-eval`` is one of labels, which users and items do not have."""
    for options, ranks in (((), True), (("probe=none",), False)):
        code, out, err = run(f"run={trained_run}", *options, command="eval")
        assert code == 0 and ("ndcg_at_10" in out) is ranks, err
