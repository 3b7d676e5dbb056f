"""Hydra's grammar for several values becomes Optuna's distributions, and what is drawn becomes overrides again."""

import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sslcli.errors import UserError

pytest.importorskip("optuna")
from optuna.distributions import CategoricalDistribution as Choices
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int

from sslcli.sweeps.space import read_space

COMPOSED = OmegaConf.create({"a": None, "ratio": 0.6, "size": 32})


def space(*overrides):
    return read_space(OverridesParser.create().parse_overrides(list(overrides)), COMPOSED)


@pytest.mark.parametrize(
    "override, distribution",
    [
        ("a=interval(0.5,2)", Float(0.5, 2.0)),
        ("a=interval(1,5)", Int(1, 5)),
        ("size=interval( 16 , 64 )", Int(16, 64)),
        ("ratio=interval(0,1)", Float(0.0, 1.0)),  # the key has fractions, whatever the ends look like
        ("a=float(interval(1,5))", Float(1.0, 5.0)),
        ("a=int(interval(1,5))", Int(1, 5)),
        ("a=tag(log, interval(1e-4, 1e-2))", Float(1e-4, 1e-2, log=True)),
        ("a=tag(log, int(interval(1, 64)))", Int(1, 64, log=True)),
        ("a=choice(2,true,x,0.5)", Choices([2, True, "x", 0.5])),
        ("a=choice(1,true)", Choices(["1", "True"])),  # they are equal in Python
        ("a=1,2,2,3", Choices([1, 2, 3])),
        ("a=vit_tiny,resnet18", Choices(["vit_tiny", "resnet18"])),
        ("a=range(1,10,3)", Int(1, 7, step=3)),
        ("a=range(1,8,3)", Int(1, 7, step=3)),
        ("a=range(5)", Int(0, 4)),
        ("a=range(8,0,-4)", Int(4, 8, step=4)),
        ("a=range(0.5,2,0.5)", Float(0.5, 1.5, step=0.5)),
    ],
)
def test_ranges_become_distributions(override, distribution):
    found = space(override).distributions
    assert list(found.values()) == [distribution]
    if isinstance(distribution, Choices):  # 1 == True
        assert [type(c) for c in found["a"].choices] == [type(c) for c in distribution.choices]


def test_what_is_drawn_is_written_as_the_user_would_write_it():
    found = space(
        "b=x", "a=interval(0,1.0)", "c=true,false", "d='x y',[1,2]", "e=range(0.1,0.5,0.1)", "+f=1,2", "~g", "h=1,true"
    )
    values = {"a": 0.123456789, "c": True, "d": "[1,2]", "e": 0.1 + 0.2, "+f": 2, "h": "true"}
    grid = ["b=x", "a=0.1235", "c=True", "d=[1,2]", "e=0.30000000000000004", "+f=2", "~g"]
    assert found.overrides({**values, "h": found.distributions["h"].choices[1]})[:7] == grid
    assert space("a=interval(0.12341,0.12344)").overrides({"a": 0.123412}) == ["a=0.123412"]  # not below the range
    parsed = OverridesParser.create().parse_overrides(["d='x y'"])[0]
    text = found.overrides({**values, "d": found.distributions["d"].choices[0], "h": 1})[3]
    assert OverridesParser.create().parse_override(text).value() == parsed.value()


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["a=1"], "no key has a range to search"),
        (["a=tag(log, interval(0, 1))"], "a=tag(log, interval(0, 1)): a logarithmic range must begin above 0"),
        (["a=interval(2,1)"], "the second number must be larger"),
        (["a=interval(1,inf)"], "must be finite"),
        (["a=range(3,3)"], "there is no value in it"),
        (["a=tag(log, range(1,10,2))"], "cannot be logarithmic"),
        (["a=tag(log, choice(1,2))"], "log is for an interval"),
        (["a=tag(lin, interval(1,2))"], "there is no tag lin"),
    ],
)
def test_what_cannot_be_searched_is_refused(overrides, said):
    with pytest.raises(UserError) as refused:
        space(*overrides)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_points_that_are_not_tried_are_found_until_there_are_none():
    import random

    found, tried = space("a=1,2,3", "size=range(2)"), set()
    while (point := found.untried(tried, random.Random(0))) is not None:
        tried.add(tuple(found.overrides(point)))
    assert len(tried) == 6
    assert space("a=1,2", "ratio=interval(0,1)").untried(set(), random.Random(0)) is None


def test_corners_try_every_choice_and_the_end_of_a_range():
    corners = space("a=x,y", "size=interval(2,8)").corners()
    assert list(corners) == [["a=x", "size=5"], ["a=y", "size=5"], ["a=x", "size=8"]]
    middle = next(space("a=tag(log, interval(1e-4, 1e-2))").corners())
    assert math.isclose(float(middle[0][2:]), 1e-3)


def test_keys_that_change_no_result_are_no_part_of_a_space():
    plain = space("run_dir=x", "device=cpu", "probe.max_samples=9", "train.steps=5", "a=1,2").to_plain()
    assert sorted(plain) == ["a", "probe.max_samples", "train.steps"]
