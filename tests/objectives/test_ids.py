"""InfoNCE of users and items against loops in float64: log Q, equal ids, ids that count once, and layers."""

import math

import pytest
import torch
from support.helpers import randomness
from support.modalities import Bag, pairs_dataset, token_dataset
from torch.nn import functional as F

from sslcli.encoders.nodes import Nodes
from sslcli.features import Features
from sslcli.graph import Graph
from sslcli.objectives.infonce import InfoNCE
from sslcli.objectives.losses import contrastive as contrast
from sslcli.objectives.losses import tiled_logsumexp as tiles
from sslcli.objectives.losses.equal_samples import weight_of_negatives
from sslcli.views.nodes.pairs import UserItem

DATASET = pairs_dataset()
USERS, ITEMS = [3, 1, 3, 0, 2, 1, 3], [9, 9, 7, 8, 5, 6, 9]
T = 0.3


def embeddings(seed=0):
    one, two = torch.randn(2, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).unbind()
    return one.requires_grad_(), two.requires_grad_()


def loop(z1, z2, allowed, log_q):
    """The mean over anchors of the cross-entropy among the allowed candidates with corrected logits."""
    z1, z2, losses = F.normalize(z1, dim=1), F.normalize(z2, dim=1), []
    for i in range(len(z1)):
        scores = {j: z1[i] @ z2[j] / T - log_q[j] for j in range(len(z2)) if i == j or allowed(i, j)}
        losses.append(torch.stack([*scores.values()]).logsumexp(0) - scores[i])
    return torch.stack(losses).mean()


def assert_equal_with_gradients(found, expected, leaves):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    one, two = (torch.autograd.grad(loss, leaves, retain_graph=True) for loss in (found, expected))
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("tile", [3, 1000])
@pytest.mark.parametrize("symmetric", [False, True])
def test_log_q_and_pairs_of_equal_ids_are_the_loop(symmetric, tile, monkeypatch):
    monkeypatch.setattr(tiles, "tile_size", lambda like: tile)
    z1, z2 = embeddings()
    q1, q2 = torch.rand(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).log().unbind()
    same = torch.tensor([USERS, ITEMS]).T
    allowed = lambda i, j: USERS[i] != USERS[j] and ITEMS[i] != ITEMS[j]  # noqa: E731
    expected = loop(z1, z2, allowed, q2)
    if symmetric:
        expected = (expected + loop(z2, z1, allowed, q1)) / 2
    temperature = torch.tensor(T, dtype=torch.float64, requires_grad=True)
    found = contrast.info_nce(z1, z2, temperature, symmetric, same, (q1, q2))
    assert_equal_with_gradients(found, expected, (z1, z2))
    (at_temperature,) = torch.autograd.grad(found, temperature)
    nearby = [contrast.info_nce(z1, z2, T + h, symmetric, same, (q1, q2)) for h in (1e-6, -1e-6)]
    assert at_temperature.item() == pytest.approx((nearby[0] - nearby[1]).item() / 2e-6, rel=1e-5)


@pytest.mark.parametrize("loss", [contrast.info_nce_of_ids, contrast.counted_once])  # on a CPU, and elsewhere
@pytest.mark.parametrize("symmetric", [False, True])
def test_ids_that_count_once_are_the_rows_of_unique_ids(symmetric, loss):
    ids = torch.tensor(USERS)
    one, two = embeddings()
    z1, z2 = (z.detach()[ids].requires_grad_() for z in (one, two))  # equal ids have equal rows
    first = [USERS.index(user) for user in sorted(set(USERS))]
    expected = contrast.info_nce(z1[first], z2[first], T, symmetric)
    found = loss(z1, z2, T, ids, symmetric)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for here, there in zip(torch.autograd.grad(found, (z1, z2)), torch.autograd.grad(expected, (z1, z2))):
        summed = torch.stack([here[ids == user].sum(0) for user in sorted(set(USERS))])
        torch.testing.assert_close(summed, there[first], rtol=1e-9, atol=1e-11)


def test_the_weight_of_negatives_is_a_sum_over_samples_that_differ_in_all_numbers():
    weight = torch.rand(7, generator=torch.Generator().manual_seed(2))
    pairs = torch.tensor([USERS, ITEMS]).T
    for numbers in (pairs, pairs[:, 0]):
        rows = numbers.reshape(7, -1).tolist()
        differ = [[all(a != b for a, b in zip(rows[i], rows[j])) for j in range(7)] for i in range(7)]
        expected = [sum(float(weight[j]) for j in range(7) if differ[i][j]) for i in range(7)]
        assert weight_of_negatives(numbers, weight).tolist() == pytest.approx(expected, abs=1e-6)
        assert weight_of_negatives(numbers).tolist() == [sum(row) for row in differ]


def objective_of(layers=0, noise="none", num_views=2, count=38, encoder=None, **options):
    """An objective with what it projects of the first pairs of the tiny dataset."""
    torch.manual_seed(0)
    encoder = encoder or Nodes(DATASET.spec, dim=6, layers=layers, noise=0.2 if noise != "none" else 0.0)
    objective = InfoNCE(encoder, **{"form": "cross_view", "temperature": T, "depth": 0, **options})
    columns = DATASET.fetch(torch.arange(count))
    made = UserItem(DATASET.spec, DATASET.spec, num_views, noise=noise)(columns, randomness(count))
    return objective, objective.project(Features(encoder, made, randomness(count), columns, at_once=True))


@pytest.mark.parametrize("symmetric", [False, True])
def test_automatic_log_q_and_same_are_those_of_the_training_pairs(symmetric):
    objective, outputs = objective_of(same="auto", symmetric=symmetric)
    user, item = (DATASET.columns[name] for name in ("user", "item"))
    share = [max(int((column == node).sum()), 1) / 38 for column, node in [(user, u) for u in range(12)]]
    share += [max(int((item == node).sum()), 1) / 38 for node in range(12, 21)]
    assert Graph.of(DATASET.spec).shares.tolist() == pytest.approx(share)
    log_q = torch.tensor(share).double().log()
    allowed = lambda i, j: user[i] != user[j] and item[i] != item[j]  # noqa: E731
    z1, z2 = outputs["z1"].double(), outputs["z2"].double()
    expected = loop(z1, z2, allowed, log_q[item])
    chance = loop(torch.ones(38, 2), torch.ones(38, 2), allowed, log_q[item])
    if symmetric:
        expected = (expected + loop(z2, z1, allowed, log_q[user])) / 2
        chance = (chance + loop(torch.ones(38, 2), torch.ones(38, 2), allowed, log_q[user])) / 2
    loss = objective.loss(outputs)
    assert float(loss.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(loss.chance) == pytest.approx(float(chance), rel=1e-5)
    assert objective.chance(38) is None and not objective.state_dict()


def test_without_log_q_popular_items_are_negatives_more_often():
    objective, outputs = objective_of(same="auto", log_q=False)
    assert set(outputs) == {"z1", "z2", "same"} and outputs["same"].shape == (38, 2)
    plain, plain_outputs = objective_of(log_q=False)
    assert set(plain_outputs) == {"z1", "z2"} and plain.chance(38) == pytest.approx(math.log(38))


def test_two_noisy_passes_are_contrasted_by_unique_ids():
    for reads, column in (([3, 4], "user"), ([5, 6], "item")):
        objective, outputs = objective_of(2, "added", 7, unique=True, reads=reads)
        ids = DATASET.columns[column]
        first = [ids.tolist().index(node) for node in ids.unique()]
        expected = contrast.info_nce(outputs["z1"][first], outputs["z2"][first], T)
        loss = objective.loss(outputs)
        torch.testing.assert_close(loss.total, expected)
        assert float(loss.chance) == pytest.approx(math.log(len(first)), rel=1e-5)
        assert not torch.equal(outputs["z1"], outputs["z2"])


def test_the_mean_is_contrasted_with_a_layer_of_the_same_pass():
    objective, outputs = objective_of(2, "all", 3, unique=True, layer=1, reads=[1])
    torch.manual_seed(0)
    encoder = Nodes(DATASET.spec, dim=6, layers=2, noise=0.2)
    columns = DATASET.fetch(torch.arange(38))
    view = UserItem(DATASET.spec, DATASET.spec, 3, noise="all")(columns, randomness(38))[1]
    encoded = encoder(view)
    torch.testing.assert_close(outputs["z1"], F.normalize(encoded.pooled, dim=1))
    torch.testing.assert_close(outputs["z2"], F.normalize(encoded.tokens[:, 1], dim=1))
    assert objective.reads == (1,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "nt_xent", "log_q": True}, "form=nt_xent has neither log_q"),
        ({"unique": True, "same": "auto"}, "unique=true counts each id once"),
        ({"unique": True}, "two noisy passes over the same ids"),
        ({"encoder": Bag(token_dataset().spec), "same": "auto"}, "these data have none"),
        ({"layer": 1}, "use encoder=nodes encoder.layers=1"),
        ({"encoder": Bag(token_dataset().spec), "log_q": True}, "no users and items"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        objective_of(**options)
