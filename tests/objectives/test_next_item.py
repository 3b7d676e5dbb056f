"""Cross-entropy over all items at every place of a history: against a loop in float64, and tile by tile."""

import math

import pytest
import torch
from support.helpers import randomness
from support.modalities import histories
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sslcli.encoders.history import History
from sslcli.encoders.mlp import MLP
from sslcli.features import Features
from sslcli.graph import Graph
from sslcli.objectives.joint import Joint
from sslcli.objectives.next_item import NextItem
from sslcli.types import Field, Spec, View

DATA = histories()
FIELD, USERS, ITEMS = DATA.spec["history"], 96, 30


def parts(data=DATA, dtype=torch.float32, **options):
    torch.manual_seed(0)
    encoder = History(data.spec, **{"hidden_dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.0, **options})
    torch.nn.init.normal_(encoder.items.weight)
    encoder.to(dtype)
    return encoder, NextItem(encoder)


def loss_of(encoder, objective, ids):
    view = View(ids, "history", ids != FIELD.pad)
    return objective.loss(objective.project(Features(encoder, [view], randomness(len(ids)))))


def by_loop(encoder, ids):
    """The mean over all beginnings of all histories of the error of the item that follows."""
    table, errors = encoder.items.weight, []
    for row in ids:
        row = row[row != FIELD.pad]
        for end in range(1, len(row)):
            state = encoder(View(row[None, :end], "history")).tokens[0, -1]  # of the beginning alone
            scores = [state @ table[item] for item in range(ITEMS)]
            errors.append(torch.logsumexp(torch.stack(scores), 0) - scores[int(row[end]) - USERS])
    return torch.stack(errors).mean()


def test_loss_and_gradients_are_those_of_a_loop_over_all_beginnings():
    ids = DATA.columns["history"][:9]
    slow, _ = parts(dtype=torch.float64)
    expected = by_loop(slow, ids)
    expected.backward()
    encoder, objective = parts()
    found = loss_of(encoder, objective, ids)
    found.total.backward()
    assert float(found.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for (name, one), other in zip(encoder.named_parameters(), slow.parameters()):
        expected = torch.zeros_like(one) if other.grad is None else other.grad.float()
        torch.testing.assert_close(one.grad, expected, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_a_history_is_a_sum_and_a_count():
    encoder, objective = parts()
    ids = DATA.columns["history"]
    rows = objective.project(Features(encoder, [View(ids, "history")], randomness(len(ids))))
    assert torch.equal(rows["count"], ((ids != FIELD.pad).sum(1) - 1).clamp(min=0).float())
    assert not rows["error"][rows["count"] == 0].any() and {len(value.shape) for value in rows.values()} == {1}
    for part in (slice(0, 40), slice(40, 96)):
        mine = objective.project(
            Features(encoder, [View(ids[part], "history")], randomness(96).part(0, len(ids[part])))
        )
        torch.testing.assert_close(mine["error"], rows["error"][part], rtol=1e-5, atol=1e-5)


def test_places_that_do_not_count_change_nothing():
    """A CPU leaves them out, a GPU multiplies them by 0."""
    encoder, objective = parts()
    ids = DATA.columns["history"]
    features = Features(encoder, [View(ids, "history")], randomness(len(ids)))
    states = features.clean(0)[0].tokens[:, :-1]
    each = objective._compared(states.flatten(0, 1), (ids[:, 1:] - USERS).clamp(max=ITEMS - 1).flatten())
    error = (each.view(96, 11) * (ids[:, 1:] != FIELD.pad)).sum(1)
    torch.testing.assert_close(objective.project(features)["error"], error, rtol=1e-5, atol=1e-5)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that anything makes."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.found = max([self.found, *sizes])
        return out


def test_scores_of_all_items_are_never_stored():
    users, items, length = 40, 4_000, 50
    spec = Spec(
        history=Field("tokens", (length,), torch.int64, users + items + 2, pad=users + items, mask=users + items + 1),
        facts=Graph.facts(users, items, torch.arange(users), torch.arange(users)),
    )
    encoder = History(spec, hidden_dim=16, depth=1, num_heads=1, dropout=0.0)
    objective = NextItem(encoder)
    ids = users + torch.randint(0, items, (users, length), generator=torch.Generator().manual_seed(0))
    with Largest() as largest:
        loss = objective.loss(objective.project(Features(encoder, [View(ids, "history")], randomness(users))))
        loss.total.backward()
    assert encoder.items.weight.grad.any()
    assert largest.found < users * (length - 1) * items / 10  # two tiles of 512 x 512 are the largest


def test_states_that_tell_nothing_are_at_chance_and_scores_are_products():
    encoder, objective = parts()
    torch.nn.init.zeros_(encoder.items.weight)
    found = loss_of(encoder, objective, DATA.columns["history"])
    assert float(found.total.detach()) == pytest.approx(math.log(ITEMS)) == pytest.approx(found.chance)
    assert objective.similarity == "dot"
    node = {"_target_": "sslcli.objectives.next_item.NextItem"}
    contrast = {"_target_": "sslcli.objectives.infonce.InfoNCE", "reads": [1, 2]}
    joint = Joint(encoder, parts={"next": node, "contrast": contrast}, weights={"next": 1, "contrast": 0.1})
    assert joint.similarity == "dot" and joint.reads == (0, 1, 2)


def test_histories_of_one_item_or_none_have_nothing_to_predict():
    encoder, objective = parts()
    ids = torch.full((3, 4), FIELD.pad)
    ids[1:, 0] = USERS
    for width in (4, 1):
        found = loss_of(encoder, objective, ids[:, :width])
        found.total.backward()
        assert float(found.total.detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in encoder.parameters())


def test_a_mask_is_never_what_follows():
    encoder, objective = parts()
    ids = DATA.columns["history"][2:3].clone()
    ids[0, 5] = FIELD.mask
    rows = objective.project(Features(encoder, [View(ids, "history")], randomness(1)))
    assert rows["count"].item() == 10 and rows["error"].isfinite()


def test_it_learns_what_follows():
    encoder, objective = parts()
    optimizer = torch.optim.AdamW([*encoder.parameters()], 1e-2)
    ids = DATA.columns["history"]
    for _ in range(60):
        loss = loss_of(encoder, objective, ids).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = encoder(View(ids, "history")).pooled @ encoder.item_vectors().T
    following = DATA.held_out.rankings.relevant.values
    long = (ids != FIELD.pad).sum(1) > 3
    assert (scores.argmax(1) == following)[long].float().mean() > 0.9


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="use encoder=history with encoder.causal=true"):
        NextItem(History(DATA.spec, causal=False))
    with pytest.raises(ValueError, match="use encoder=history"):
        NextItem(MLP(Spec(vector=Field("vector", (3,), torch.float32))))
    with pytest.raises(ValueError, match="must number 1 different views"):
        NextItem(History(DATA.spec), reads=[0, 1])
