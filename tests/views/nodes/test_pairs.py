"""Negatives: never an item of the user, uniform among the others, and the same however a batch is divided."""

import numpy as np
import pytest
import torch
from support.helpers import randomness
from support.modalities import pairs_dataset, user_item_dataset

from sslcli.errors import UserError
from sslcli.graph import Graph
from sslcli.types import Field, Spec
from sslcli.views.nodes.pairs import UserItem

DATASET = pairs_dataset()
COLUMNS = DATASET.fetch(torch.arange(len(DATASET)))


def spec_of(*items_of_users, items):
    """Users with these items, of ``items``."""
    pairs = torch.tensor([(u, i) for u, of in enumerate(items_of_users) for i in of]).T
    field = Field("id", (), torch.int64, len(items_of_users) + items)
    return Spec(user=field, item=field, facts=Graph.facts(len(items_of_users), items, *pairs))


def views(num_views, spec=DATASET.spec, **options):
    return UserItem(spec, spec, num_views, **options)


def test_a_negative_is_uniform_among_the_items_that_the_user_does_not_have():
    have = {0: (0, 2, 3, 9), 1: (5,), 2: tuple(range(9)), 3: (0, 1, 2), 4: (7, 8, 9)}
    spec = spec_of(*have.values(), items=10)
    users = torch.arange(5).repeat_interleave(600)
    columns = {"user": users, "item": torch.full_like(users, 5)}
    _, _, *drawn = views(12, spec)(columns, randomness(len(users)))
    negatives = torch.stack([view.x for view in drawn]) - 5
    assert negatives.shape == (10, 3000) and {view.field for view in drawn} == {"item"}
    for user, of in have.items():
        counts = torch.bincount(negatives[:, users == user].flatten(), minlength=10)
        free = [i for i in range(10) if i not in of]
        assert counts.nonzero().flatten().tolist() == free
        expected = 6000 / len(free)
        chi2 = float(((counts[free] - expected) ** 2 / expected).sum())
        assert chi2 < 30  # at most 8 degrees of freedom: less likely than 1 in 1,000


def test_of_a_user_who_has_all_items_the_negative_is_the_item():
    spec = spec_of(range(4), (1,), items=4)
    columns = {"user": torch.tensor([0, 0, 1]), "item": torch.tensor([3, 5, 3])}
    negative = views(3, spec)(columns, randomness(3))[2].x
    assert negative[:2].tolist() == [3, 5] and negative[2] != 3


def test_a_sample_draws_alone():
    whole = views(4)(COLUMNS, randomness(38, step=3))
    part = views(4)({name: x[10:20] for name, x in COLUMNS.items()}, randomness(38, step=3).part(10, 20))
    for one, two in zip(whole, part):
        assert torch.equal(one.x[10:20], two.x) and one.noise is two.noise is None
    other = views(4)(COLUMNS, randomness(38, step=4))
    assert torch.equal(whole[1].x, other[1].x) and not torch.equal(whole[2].x, other[2].x)
    assert not torch.equal(whole[2].x, whole[3].x)


def test_noise_is_of_a_step_and_a_pass():
    made = views(7, noise="added")(COLUMNS, randomness(38))
    assert [view.field for view in made] == ["user", "item", "item", "user", "user", "item", "item"]
    assert list(views(7, noise="added").fields) == [view.field for view in made]
    assert [view.noise for view in made[:3]] == [None] * 3
    one, two = made[3].noise, made[4].noise
    assert None not in (one, two) and one != two and [view.noise for view in made[5:]] == [one, two]
    part = views(7, noise="added")({name: x[:5] for name, x in COLUMNS.items()}, randomness(38).part(0, 5))
    assert [view.noise for view in part] == [view.noise for view in made]
    later = views(7, noise="added")(COLUMNS, randomness(38, step=1))
    assert later[3].noise not in (one, two)
    (seed,) = {view.noise for view in views(3, noise="all")(COLUMNS, randomness(38))}
    assert seed not in (None, one, two)
    assert torch.equal(torch.stack([view.x for view in made[3:]]), torch.stack([*[made[0].x] * 2, *[made[1].x] * 2]))


def test_evaluation_reads_users_or_items():
    made = views(3, noise="all")
    view = made.evaluation_view(COLUMNS)
    assert view.field == "user" and view.noise is None and np.array_equal(view.x, COLUMNS["user"])
    assert torch.equal(made.evaluation_view(COLUMNS, "item").x, COLUMNS["item"])
    with pytest.raises(UserError, match="'vector', only of user and item"):
        made.evaluation_view(COLUMNS, "vector")


def test_what_cannot_be():
    with pytest.raises(ValueError, match="no users and items"):
        views(2, user_item_dataset().spec)
    with pytest.raises(ValueError, match="noise=added makes 6 views and negatives, and the objective reads 3"):
        views(3, noise="added")
    without = Spec({"user": DATASET.spec["user"]}, facts=DATASET.spec.facts)
    with pytest.raises(ValueError, match="no column 'item', as its samples are no pairs; histories go with"):
        views(2, without)
    with pytest.raises(ValueError, match="'item' is id of 5 ids"):
        views(2, DATASET.spec.having("item", Field("id", (), torch.int64, 5)))
