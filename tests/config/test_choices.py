"""Parts that are chosen and not built yet."""

import pytest

from sslcli.config.choices import Choice, DatasetChoice
from sslcli.config.composed import TrainConfig, read, to_plain
from sslcli.config.identity import flatten
from sslcli.run_dir.records import choice

PLAIN = {
    "encoder": {"_target_": "sslcli.encoders.timm.Timm", "name": "resnet18", "weights": None},
    "objective": {"_target_": "sslcli.objectives.infonce.InfoNCE"},
    "dataset": {"_target_": "mine.Data", "workers": 3},
}


def test_a_choice_goes_by_its_models_name_or_else_by_its_class():
    config = read(PLAIN, TrainConfig)
    assert [part.name for part in (config.encoder, config.objective, config.views)] == ["resnet18", "InfoNCE", ""]
    names = [choice(flatten(PLAIN), group) for group in ("encoder", "objective", "dataset", "views")]
    assert names == ["resnet18", "InfoNCE", "Data", ""]


def test_keys_that_others_read_are_no_keys_of_the_part():
    chosen = DatasetChoice.read(PLAIN["dataset"])
    assert chosen.node == {"_target_": "mine.Data"} and chosen.workers == 3 and chosen.max_bad is None
    assert chosen.to_plain() == {
        "_target_": "mine.Data",
        "workers": 3,
        "cache": "auto",
        "max_bad": None,
        "max_pixels": None,
        "normalise": None,
        "range": "auto",
        "buckets": None,
    }
    assert chosen.with_keys(path="x").node == {"_target_": "mine.Data", "path": "x"} and "path" not in chosen.node


@pytest.mark.parametrize("written", [None, "infonce", 3, []])
def test_what_is_no_section_is_kept_until_it_is_built(written):
    assert Choice.read(written).node == written and Choice.read(written).to_plain() == written


def test_a_config_is_the_plain_dict_that_it_was_read_from():
    from support.helpers import compose

    plain = to_plain(compose("objective=joint", "logger=[csv]", "train.epochs=2"))
    assert to_plain(read(plain, TrainConfig)) == plain
