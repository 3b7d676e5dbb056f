"""Vectors of two towers: against a loop in NumPy, and what they need of the data."""

import numpy as np
import pytest
import torch
from support.modalities import ITEM_WIDTH, USER_WIDTH, pairs_dataset

from sslcli.encoders.base import Recommends
from sslcli.encoders.nodes import Nodes
from sslcli.encoders.towers import Towers
from sslcli.graph import FEATURES
from sslcli.types import Field, Spec, View

DATASET = pairs_dataset(features=True)
SPEC, USERS, ITEMS = DATASET.spec, 12, 9


def encoder(spec=SPEC, **options):
    torch.manual_seed(0)
    return Towers(spec, **{"dim": 5, "hidden_dim": 7, **options})


def by_hand(found, role, number):
    """One vector in float64, by the names of the weights."""
    weights = {name: value.detach().double().numpy() for name, value in found.state_dict().items()}
    x = SPEC.facts[FEATURES[role]][number].double().numpy()
    linear = sorted({int(name.split(".")[2]) for name in weights if name.startswith(f"towers.{role}")})
    for layer in linear:
        x = weights[f"towers.{role}.{layer}.weight"] @ x + weights[f"towers.{role}.{layer}.bias"]
        x = x if layer == linear[-1] else np.maximum(x, 0)
    own = weights["embed.weight"][number + USERS * (role == "item")] if "embed.weight" in weights else 0
    return own + x


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("ids", [True, False])
def test_vectors_are_those_of_a_loop(depth, ids):
    found = encoder(depth=depth, ids=ids, std=0.5)
    for role, nodes in (("user", [0, 11, 3, 3]), ("item", [12, 20, 15])):
        encoded = found(View(torch.tensor(nodes), role))
        expected = [by_hand(found, role, node - USERS * (role == "item")) for node in nodes]
        np.testing.assert_allclose(encoded.pooled.detach(), np.stack(expected), rtol=1e-5, atol=1e-6)
        assert torch.equal(encoded.token(0), encoded.pooled)
    expected = np.stack([by_hand(found, "item", i) for i in range(ITEMS)])
    np.testing.assert_allclose(found.item_vectors().detach(), expected, rtol=1e-5, atol=1e-6)


def test_without_features_the_vectors_are_a_table():
    plain = pairs_dataset().spec
    found, nodes = encoder(plain), Nodes(plain, dim=5)
    assert list(found.state_dict()) == ["embed.weight"]
    nodes.load_state_dict(found.state_dict())
    assert torch.equal(found.item_vectors(), nodes.item_vectors())
    assert found.in_words(1) == (
        "users: ids alone; items: ids alone; features are given by dataset.user_features=FILE and "
        "dataset.item_features=FILE"
    )
    assert encoder().in_words(1) == (
        f"users: ids and {USER_WIDTH} numbers of features; items: ids and {ITEM_WIDTH} numbers of features"
    )
    assert encoder(ids=False).in_words(1).startswith(f"users: {USER_WIDTH} numbers of features; items: ")


def test_features_are_facts_of_the_run_and_in_no_checkpoint():
    found = encoder(ids=False)
    assert isinstance(found, Recommends)
    assert {name.split(".")[0] for name in found.state_dict()} == {"towers"}
    same = dict(SPEC.facts)
    same["graph.user_features"] = same["graph.user_features"].clone()
    same["graph.user_features"][4] = same["graph.user_features"][7]
    vectors = encoder(Spec(SPEC, facts=same), ids=False)(View(torch.tensor([4, 7]), "user")).pooled
    assert torch.equal(*vectors)  # of equal features, without ids


def test_what_cannot_be():
    with pytest.raises(ValueError, match="has no users and items"):
        Towers(Spec(user=Field("id", (), torch.int64, 3)))
    with pytest.raises(ValueError, match=r"ids=false: items have no features; set dataset.item_features=FILE"):
        Towers(Spec(SPEC, facts={key: fact for key, fact in SPEC.facts.items() if "item_f" not in key}), ids=False)
    with pytest.raises(ValueError, match="could be hidden"):
        encoder()(View(torch.arange(3), "user"), torch.ones(3, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="a view is of 'history'"):
        encoder()(View(torch.arange(3), "history"))
