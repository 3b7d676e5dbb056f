"""Tables of interactions: how they are read, divided and numbered, against loops over Python's own lists."""

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from sslcli.data.interactions.ids import Ids
from sslcli.data.interactions.interactions import interactions
from sslcli.graph import Graph
from sslcli.randomness import fold
from sslcli.run_dir.fitted import Fitted

MASK = 2**64 - 1


def mixed(x):
    """SplitMix64's finaliser, in Python's integers."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def hashed(text):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def drawn(seed, user, item):
    return mixed(mixed(hashed(user) ^ fold(seed, "interactions")) ^ hashed(item))


def rows_of(seed=0, users=30, items=25, rows=400):
    """Rows (user, item, rating, time), some pairs twice, times with ties."""
    rng = np.random.default_rng(seed)
    names = [f"u{i}" for i in range(users - 2)] + ["7", "12"]
    return [
        (
            names[int(users * rng.random() ** 2)],
            str(int(items * rng.random() ** 2)),
            int(rng.integers(1, 6)),
            int(rng.integers(0, 40)),
        )
        for _ in range(rows)
    ]


def write(path, rows, header="user_id,item_id,rating,timestamp"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


def once_by_loop(rows):
    """The first time of each pair."""
    first = {}
    for user, item, _, time in rows:
        first[user, item] = min(time, first.get((user, item), time))
    return first


def parts_by_loop(first, how, seed):
    """Train, validation and test by user as lists of items, in the order in which they are cut."""
    of_user = defaultdict(list)
    for (user, item), time in first.items():
        of_user[user].append(((0 if how == "random" else time), drawn(seed, user, item), item))
    found = {}
    for user, own in of_user.items():
        ordered = [item for *_, item in sorted(own)]
        n = len(ordered)
        held = 0 if n < 3 else 1 if how == "leave_one_out" else max(int(0.1 * n), 1)
        found[user] = (ordered[: n - 2 * held], ordered[n - 2 * held : n - held], ordered[n - held :])
    return found


def pairs_of(dataset, ids):
    columns = dataset.fetch(torch.arange(len(dataset)))
    assert columns["user"].dtype == columns["item"].dtype == torch.int64
    return [
        (ids.users[user], ids.items[item - len(ids.users)])
        for user, item in zip(columns["user"].tolist(), columns["item"].tolist())
    ]


def named(lists, row, ids):
    return {ids.items[i] for i in lists.row(row).tolist()}


@pytest.mark.parametrize("how", ["random", "time", "leave_one_out"])
@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_split_is_that_of_a_loop_and_no_order_of_rows_changes_it(tmp_path, how, part):
    rows = rows_of()
    found = parts_by_loop(once_by_loop(rows), how, 3)
    fitted = Fitted()
    made = interactions(path=write(tmp_path / "a.csv", rows), split=how, seed=3, part=part).fit(fitted)
    ids = Ids.of_file(fitted.files["ids.json"])
    train = sorted((user, item) for user, (items, *_) in found.items() for item in items)
    assert sorted(pairs_of(made, ids)) == train
    assert set(ids.users) == {user for user, _ in train} and set(ids.items) == {item for _, item in train}
    assert ids.users[:2] == ("7", "12")  # whole numbers by value, then texts
    known = {item for _, item in train}
    which = 2 if part == "test" else 1
    held_out = sorted((user, item) for user, own in found.items() for item in own[which] if item in known)
    assert sorted(pairs_of(made.held_out, ids)) == held_out

    asked = made.held_out.rankings
    shown = made.held_out.fetch(asked.queries)["user"]
    assert torch.equal(shown, asked.users)
    assert [ids.users[i] for i in asked.users] == [user for user in ids.users if any(user == u for u, _ in held_out)]
    assert asked.lost == sum(bool(own[which]) and not {*own[which]} & known for own in found.values())
    for row, user in enumerate(ids.users[i] for i in asked.users.tolist()):
        own = found[user]
        assert named(asked.relevant, row, ids) == {item for item in own[which] if item in known}
        assert int(asked.unknown[row]) == sum(item not in known for item in own[which])
        seen = own[0] + (own[1] if part == "test" else [])
        assert named(asked.seen, row, ids) == {item for item in seen if item in known}
        assert named(asked.known, row, ids) == set(own[0])

    graph = Graph.of(made.spec)
    edges = [(ids.users[u], ids.items[i - len(ids.users)]) for u, i in graph.edges.T.tolist()]
    assert sorted(edges) == train
    assert dict(zip(ids.items, graph.popularity.tolist())) == Counter(item for _, item in train)

    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    again, other = Fitted(), interactions(path=write(tmp_path / "b.csv", shuffled), split=how, seed=3, part=part)
    other = other.fit(again)
    assert again.files == fitted.files
    assert pairs_of(other, ids) == pairs_of(made, ids) and pairs_of(other.held_out, ids) == pairs_of(made.held_out, ids)


@pytest.mark.parametrize("how", ["random", "time", "leave_one_out"])
@pytest.mark.parametrize("part", ["test", "validation"])
def test_histories_are_those_of_a_loop(tmp_path, how, part):
    rows = rows_of(1)
    first = once_by_loop(rows)
    found = parts_by_loop(first, how, 0)
    fitted = Fitted()
    path = write(tmp_path / "a.csv", rows)
    made = interactions(path=path, split=how, part=part, sample="history", length=4).fit(fitted)
    ids = Ids.of_file(fitted.files["ids.json"])
    nodes = len(ids.users) + len(ids.items)
    field = made.spec["history"]
    assert (field.pad, field.mask, field.vocab, field.shape) == (nodes, nodes + 1, nodes + 2, (4,))

    def history(user, *parts):
        own = [item for k in parts for item in found[user][k] if item in ids.number_of_item]
        return sorted(own, key=lambda item: (first[user, item], drawn(0, user, item)))

    def read(dataset):
        columns = dataset.fetch(torch.arange(len(dataset)))
        for user, row in zip(columns["user"].tolist(), columns["history"].tolist()):
            items = [ids.items[node - len(ids.users)] for node in row if node != nodes]
            assert row == row[: len(items)] + [nodes] * (4 - len(items))  # padded at the end
            yield ids.users[user], items

    assert list(read(made)) == [(user, history(user, 0)[-4:]) for user in ids.users]
    asked = made.held_out.rankings
    parts = (0, 1) if part == "test" else (0,)
    assert torch.equal(made.held_out.fetch(asked.queries)["user"], asked.users)
    assert list(read(made.held_out)) == [(ids.users[i], history(ids.users[i], *parts)[-4:]) for i in asked.users]
    for row, user in enumerate(ids.users[i] for i in asked.users.tolist()):
        assert named(asked.known, row, ids) == named(asked.seen, row, ids) == set(history(user, *parts))


@pytest.mark.parametrize("sample", ["pair", "history"])
def test_users_of_unseen_items_only_are_counted(tmp_path, sample):
    rows = [*((f"u{u}", (u + i) % 5, 5, i) for u in range(4) for i in range(5))]
    rows += [("u1", "new", 5, 9), ("u2", "newer", 5, 9)]
    made = interactions(path=write(tmp_path / "a.csv", rows), split="leave_one_out", sample=sample).fit(Fitted())
    asked = made.held_out.rankings
    assert asked.lost == 2 and asked.users.tolist() == [0, 3] and not asked.unknown.any()
    told = "2 more with items that training never saw, and 2 users have no other, which counts as 0"
    assert dict(made.notes)["test"].endswith(told)


def test_no_held_out_pair_is_in_anything_that_training_reads(tmp_path):
    path = write(tmp_path / "a.csv", rows_of(2))
    for sample in ("pair", "history"):
        fitted = Fitted()
        made = interactions(path=path, sample=sample, length=100).fit(fitted)
        ids, asked = Ids.of_file(fitted.files["ids.json"]), made.held_out.rankings
        held_out = {(int(asked.users[q]), i) for q in range(len(asked.users)) for i in asked.relevant.row(q).tolist()}
        columns = made.fetch(torch.arange(len(made)))
        users = len(ids.users)
        if sample == "pair":
            read = set(zip(columns["user"].tolist(), (columns["item"] - users).tolist()))
        else:
            read = {
                (u, i - users) for u, row in zip(columns["user"].tolist(), columns["history"].tolist()) for i in row
            }
        graph = Graph.of(made.spec)
        edges = {(u, i - users) for u, i in graph.edges.T.tolist()}
        assert held_out and not held_out & read and not held_out & edges
        assert int(graph.popularity.sum()) == len(edges)
