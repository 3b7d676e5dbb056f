"""Ranges of numbers, what constructors raise, and what Hydra does not check: each is one line that names the key."""

import inspect
import math
import typing
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from sslcli.cli import conf_dir
from sslcli.config.checks import check_ranges
from sslcli.config.composed import EvalConfig, ReportConfig, TrainConfig
from sslcli.config.given import Given
from sslcli.config.instantiate import allow, build, locate
from sslcli.config.overrides import check_overrides
from sslcli.config.ranges import Count, Positive, Range, Share, check_number
from sslcli.config.yaml_size import LIMIT, refuse_bombs, size
from sslcli.errors import UserError


@pytest.mark.parametrize(
    "value, hint, message",
    [
        (0, Count, "x=0 must be at least 1."),
        (0, Count | None, "x=0 must be at least 1."),
        (1.5, Share, "x=1.5 must be from 0 to 1."),
        (0.0, Positive, "x=0.0 must be above 0."),
        (math.inf, float, "x=inf must be finite."),
        (-math.inf, float | None, "x=-inf must be finite."),
        (math.nan, typing.Any, "x=nan must be finite."),
        (2**63, int, "a whole number has at most 64 bits"),
        (-(2**63) - 1, typing.Any, "a whole number has at most 64 bits"),
        ([0.5, 2], list[Share], "x=[0.5, 2] must be from 0 to 1."),
        ([1.0, math.inf], tuple[float, float], "must be finite"),
        ({"a": {"b": math.inf}}, typing.Any, "must be finite"),
        ({"a": 2**70}, dict[str, int], "at most 64 bits"),
    ],
)
def test_a_number_out_of_range_is_refused(value, hint, message):
    with pytest.raises(UserError) as caught:
        check_number("x", value, hint)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "value, hint",
    [
        (1, Count),
        (None, Count | None),
        (2**63 - 1, int),
        (True, bool),
        ("inf", str),
        ([0, 1], list[Share]),
        ("all", Count | str),
    ],
)
def test_numbers_in_range_pass(value, hint):
    check_number("x", value, hint)


def test_the_ends_belong_to_a_range_unless_it_is_open():
    assert 0 in Range(0, 1) and 1 in Range(0, 1) and 0 not in Range(0, 1, open_low=True) and 1.1 not in Range(0, 1)


@pytest.mark.parametrize("kind", [TrainConfig, EvalConfig, ReportConfig])
def test_a_key_means_the_same_in_every_command(kind):
    config = kind()
    check_ranges(config)
    config.device.threads = 0
    with pytest.raises(UserError, match=r"device\.threads=0 must be at least 1"):
        check_ranges(config)


def test_every_number_of_our_own_parts_is_in_its_range():
    """Each yaml's values are those of a key with a range or without one, and all of them are allowed."""
    for path in Path(conf_dir()).glob("*/*.yaml"):
        node = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(node, dict) or "_target_" not in node:
            continue
        factory = locate(node["_target_"], path.stem)
        hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory, include_extras=True)
        for key, value in node.items():
            check_number(f"{path.stem}.{key}", value, hints.get(key, typing.Any))


class Part:
    """A part whose constructor fails."""


def failing(error):
    def make(*, width: int = 5000, depth: int = 2) -> Part:
        raise error

    return make


@pytest.mark.parametrize(
    "error, message",
    [
        (ValueError("width=5000 is no prime"), "part: width=5000 is no prime"),
        (RuntimeError("boom\nmore"), "RuntimeError: boom). The largest numbers are part.width=5000."),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (OverflowError(), "OverflowError"),
        (TypeError("no"), "TypeError: no"),
        (MemoryError(), "needs more memory than there is. The largest numbers are part.width=5000."),
        (
            RuntimeError("[enforce fail at x] DefaultCPUAllocator: can't allocate memory"),
            "needs more memory than there is",
        ),
    ],
)
def test_whatever_a_constructor_raises_names_what_was_built(monkeypatch, error, message):
    allow([])
    monkeypatch.setattr("sslcli.objectives.heads.failing", failing(error), raising=False)
    with pytest.raises(UserError) as caught:
        build({"_target_": "sslcli.objectives.heads.failing", "width": 5000}, Part, where="part")
    assert str(caught.value).startswith("part") and message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["objective=moco", "objective=byol"], "objective is given twice, as moco and as byol"),
        (["encoder=null"], "encoder=null: a group takes the name of an option"),
        (["logger=3"], "logger=3: a group takes"),
        (["hydra.mode=MULTIRUN"], "hydra.mode is set by this program"),
        (["="], "there is no key before '='"),
    ],
)
def test_what_hydra_takes_in_silence_is_refused(overrides, message):
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        check_overrides(Given.read("train", overrides))


def test_what_users_write_passes():
    groups = ["objective=moco", "logger=[csv,tensorboard]", "encoder=mlp,convnet_small", "experiment=null", "~probe"]
    keys = ["train.steps=3", "train.steps=4", "hydra.sweeper.max_batch_size=2", "hydra/launcher=joblib", "+a@b=c"]
    check_overrides(Given.read("train", [*groups, *keys]))


def test_a_yaml_of_aliases_of_aliases_is_refused_before_it_is_written_out(tmp_path):
    lines = ["k0: &b0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"k{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]" for i in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"bomb.yaml stands for more than {LIMIT:,} values"):
        refuse_bombs(tmp_path)
    (tmp_path / "bomb.yaml").write_text("a: &a [1, 2]\nb: [*a, *a]\n")
    refuse_bombs(tmp_path)
    # a mapping of two keys and their values: 1 + 2 + (1 + 2) + (1 + 2 x 3)
    assert size(yaml.compose("a: &a [1, 2]\nb: [*a, *a]\n"), {}) == 13
