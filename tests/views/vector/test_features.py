"""Changed features: how many, which values, groups as a whole, and the same in every layout of the batch."""

import numpy as np
import pytest
import torch

from sslcli.randomness import Randomness
from sslcli.types import Field, Spec
from sslcli.views.vector.features import MaskFeatures, Scarf

GROUPS = torch.tensor([0, 1, 1, 1, 2, 2, 3])  # a number, a category of three, a number that may miss, a number
COUNT = 4000


def spec(rows=512):
    """Training samples whose numbers tell which row they are of: the row number plus the column's place / 10."""
    sample = torch.arange(float(rows))[:, None] + torch.arange(7) / 10
    return Spec({"vector": Field("vector", (7,), torch.float32)}, {"vector.sample": sample, "vector.groups": GROUPS})


def randomness(positions, step=3):
    return Randomness(7, step, np.asarray(positions), torch.device("cpu"))


def views_of(views, count=COUNT):
    return [view.x for view in views({"vector": torch.full((count, 7), -1.0)}, randomness(range(count)))]


def test_scarf_replaces_features_by_their_values_in_training_samples():
    clean, changed = views_of(Scarf(spec(), spec(), 2, corruption_rate=0.6))
    assert (clean == -1).all()
    is_changed = changed != -1
    per_feature = torch.stack([is_changed[:, g == GROUPS].all(1) for g in range(4)], 1)
    assert torch.equal(per_feature[:, GROUPS], is_changed)  # all numbers of a feature, or none
    assert (per_feature.sum(1) == 2).all()  # floor(0.6 * 4)
    share = per_feature.float().mean(0)
    assert ((share - 0.5).abs() < 4 * (0.25 / COUNT) ** 0.5).all()
    rows = (changed - torch.arange(7) / 10).round()
    for group in range(4):
        own = rows[per_feature[:, group]][:, group == GROUPS]
        assert (own == own[:, :1]).all()  # of one training sample
        assert abs(own.mean() - 255.5) < 4 * 512 / 12**0.5 / len(own) ** 0.5 and own.unique().numel() > 400
    first, last = rows[per_feature[:, 0] & per_feature[:, 3]][:, [0, 6]].T
    assert (first == last).float().mean() < 0.02  # each feature from a sample of its own: the marginals


def test_the_marginal_is_that_of_the_training_sample():
    """Of a feature that is 1 in a quarter of the samples, a quarter of the draws is 1."""
    sample = (torch.arange(100.0) < 25).float()[:, None]
    described = Spec({"x": Field("vector", (1,), torch.float32)}, {"x.sample": sample})
    (view,) = Scarf(described, described, 1)({"x": torch.full((COUNT, 1), -1.0)}, randomness(range(COUNT)))
    assert abs(view.x.mean() - 0.25) < 4 * (0.25 * 0.75 / COUNT) ** 0.5


def test_mask_features_hides_other_features_in_each_view():
    first, second = views_of(MaskFeatures(spec(), spec(), 2, mask_ratio=0.5))
    for view in (first, second):
        assert set(view.unique().tolist()) == {-1.0, 0.0}
        hidden = torch.stack([(view == 0)[:, g == GROUPS].all(1) for g in range(4)], 1)
        assert torch.equal(hidden[:, GROUPS], view == 0) and (hidden.sum(1) == 2).all()
    assert 0.05 < (first == second).all(1).float().mean() < 0.35  # by chance 1/6
    (single,) = views_of(MaskFeatures(spec(), spec(), 1, both=False))
    assert (single == 0).any()
    assert (views_of(MaskFeatures(spec(), spec(), 2, both=False))[0] == -1).all()


@pytest.mark.parametrize("kind", [Scarf, MaskFeatures])
def test_views_depend_on_seed_step_and_position_only(kind):
    views = kind(spec(), spec(), 2, both=True)
    x = torch.randn(64, 7)
    whole = views({"vector": x}, randomness(range(64)))
    order = np.random.default_rng(0).permutation(64)
    for part in np.split(order, 4):
        for view, expected in zip(views({"vector": x[part]}, randomness(part)), whole):
            assert torch.equal(view.x, expected.x[part])
    other = views({"vector": x}, randomness(range(64), step=4))
    assert not torch.equal(other[0].x, whole[0].x) and not torch.equal(whole[0].x, whole[1].x)
    assert torch.equal(views.evaluation_view({"vector": x}).x, x)


def test_a_field_with_mean_and_std_is_normalised_and_so_are_its_samples():
    field = Field("vector", (2,), torch.float32, mean=(3.0, 4.0), std=(2.0, 0.5))
    described = Spec({"x": field}, {"x.sample": torch.tensor([[5.0, 4.5]])})
    views = Scarf(described, described, 2, corruption_rate=1.0)
    clean, changed = views({"x": torch.tensor([[3.0, 3.5]])}, randomness([0]))
    assert clean.x.tolist() == [[0, -1]] and changed.x.tolist() == [[1, 1]]


def test_what_does_not_fit_is_said():
    plain = Spec({"vector": Field("vector", (7,), torch.float32)})
    with pytest.raises(ValueError, match=r"has no fact 'vector\.sample'.*views=mask_features"):
        Scarf(plain, plain, 2)
    ids = Spec({"user": Field("id", (), torch.int64, 5)})
    with pytest.raises(ValueError, match="has no column of vectors"):
        MaskFeatures(ids, ids, 2)
    with pytest.raises(ValueError, match="these views are of vectors"):
        MaskFeatures(ids, ids, 2, field="user")
