"""What ``auto`` stands for: by a table for every encoder and objective, and never where the user gave a value."""

from pathlib import Path

import pytest
import yaml
from support.helpers import compose

from sslcli.cli import conf_dir
from sslcli.config.automatic import FAMILIES, STARTS_FROM, family, settle, views_option
from sslcli.config.composed import to_plain
from sslcli.errors import UserError

CONF = Path(conf_dir())
SMALL, SIMMIM = ([0.3, 1.0], 0.8), ([0.67, 1.0], 0.0)  # the crops' areas, and the strength of changes of brightness


def options(group):
    return [path.stem for path in sorted((CONF / group).glob("*.yaml"))]


def section(group, option):
    own = yaml.safe_load((CONF / group / f"{option}.yaml").read_text())
    bases = [section(group, name) for name in own.pop("defaults", [])]
    return {key: value for part in (*bases, own) for key, value in part.items()}


def views_of(config):
    return list(config.views.node["scale"]), config.views.node["brightness"]


@pytest.mark.parametrize("encoder", options("encoder"))
def test_every_encoder_has_a_rate_for_every_optimizer(encoder):
    own = {
        "convnet_small": 0.01,
        "convnet_medium": 0.01,
        "mlp": 0.01,
        "resnet18": 0.003,
        "resnet50": 0.003,
        "timm": 0.003,
        "text_bag": 0.01,
        "hf": 0.00003,
        "nodes": 0.005,
        "towers": 0.005,
    }
    own = own.get(encoder, 0.001)
    for optimizer, rate in {"adamw": own, "sgd": 0.06, "lars": 0.3}.items():
        plain = {"encoder": section("encoder", encoder), "optimizer": section("optimizer", optimizer)}
        assert plain["optimizer"]["lr"] == "auto"
        settle(plain, None, lambda option: {})
        assert plain["optimizer"]["lr"] == rate


def test_automatic_views_start_from_the_option_that_is_not_composed_again():
    assert section("views", "auto") == section("views", STARTS_FROM)


@pytest.mark.parametrize("objective", ["next_item", "masked_tokens", "infonce"])
def test_histories_have_views_of_their_own(objective):
    assert views_option(section("objective", objective), None, "history") == "history"


@pytest.mark.parametrize("encoder", ["text_bag", "text_transformer"])
def test_texts_are_cropped_or_read_whole(encoder):
    for objective, made_by in (("infonce", "words.TokenCrop"), ("masked_tokens", "base.PassThrough")):
        config = compose(f"encoder={encoder}", f"objective={objective}", "dataset=wordnet_mini")
        assert config.views.node["_target_"].endswith(made_by)
    texts = {"_target_": "sslcli.objectives.masked_tokens.MaskedTokens"}
    contrast = {"_target_": "sslcli.objectives.infonce.InfoNCE"}
    assert views_option({"_target_": "Joint", "parts": {"a": texts, "b": contrast}}, None, encoder) == "token_crop"
    assert views_option({"_target_": "Joint", "parts": {"a": texts}}, None, encoder) == "columns"


@pytest.mark.parametrize("objective", sorted(set(options("objective")) - {"masked_tokens"}))
def test_a_masked_objective_gets_mild_views_and_a_joint_those_of_its_contrastive_part(objective):
    assert views_of(compose(f"objective={objective}")) == (SIMMIM if objective == "simmim" else SMALL)


def test_a_joint_of_masked_objectives_gets_mild_views():
    masked = {"_target_": "sslcli.objectives.simmim.SimMIM"}
    other = {"_target_": "sslcli.objectives.byol.BYOL"}
    assert views_option({"_target_": "Joint", "parts": {"a": masked, "b": masked}}) == "simmim"
    assert views_option({"_target_": "Joint", "parts": {"a": masked, "b": other}}) == "small"
    assert views_option({"_target_": "mine.Own"}) == "small"


def test_what_the_user_gives_is_never_changed():
    config = compose(
        "objective=simmim", "encoder=vit_tiny", "optimizer.lr=0.3", "schedule.warmup=0.25", "views.flip=0.125"
    )
    assert config.optimizer.node["lr"] == 0.3 and config.schedule.node["warmup"] == 0.25
    assert views_of(config) == SIMMIM and config.views.node["flip"] == 0.125
    # also where the value is that of the other option, from which ``auto`` starts
    config = compose("objective=simmim", "views.brightness=0.8")
    assert views_of(config) == (SIMMIM[0], 0.8)
    assert views_of(compose("objective=simmim", "views=small")) == SMALL
    assert views_of(compose("objective=infonce", "views=simmim")) == SIMMIM


@pytest.mark.parametrize("schedule, share", [("cosine", 0.1), ("constant", 0.0), ("steps", 0.0)])
def test_every_schedule_has_a_warm_up(schedule, share):
    plain = {"schedule": section("schedule", schedule)}
    settle(plain, None, lambda option: {})
    assert plain["schedule"]["warmup"] == share


def test_the_family_is_that_of_the_models_name():
    node = "sslcli.encoders.timm.Timm"
    names = {"resnet50": "resnet", "vit_small_patch16_224": "vit", "swinv2_tiny_window8_256": "swin", "vgg16": "other"}
    assert {name: family({"_target_": node, "name": name}) for name in names} == names
    assert set(FAMILIES.values()) == {family(section("encoder", name)) for name in options("encoder")} - {"other"}


@pytest.mark.slow
def test_no_option_leaves_auto_in_the_config():
    for experiment in options("experiment"):
        config = to_plain(compose(f"experiment={experiment}"))
        assert "auto" not in (config["optimizer"]["lr"], config["schedule"].get("warmup"))


def test_an_own_optimizer_needs_a_number():
    plain = {"optimizer": {"_target_": "mine.lion", "lr": "auto"}}
    with pytest.raises(UserError, match="optimizer.lr=auto: no value is known for lion. Give a number."):
        settle(plain, None, lambda option: {})


def test_what_was_settled_is_told():
    plain = {
        "encoder": {"_target_": "sslcli.encoders.timm.Timm", "name": "vit_tiny_patch16_224"},
        "objective": {"_target_": "sslcli.objectives.simmim.SimMIM"},
        "optimizer": {"_target_": "sslcli.training.optim.adamw", "lr": "auto"},
        "schedule": {"_target_": "sslcli.training.schedule.Cosine", "warmup": "auto"},
    }
    assert settle(plain, "auto", lambda option: {"option": option}) == [
        "learning rate 0.001 (vit, simmim, adamw)",
        "warm-up 0.1 of training",
        "views simmim",
    ]
    assert plain["views"] == {"option": "simmim"} and plain["optimizer"]["lr"] == 0.001
    assert settle(plain, "small", lambda option: {}) == []


@pytest.mark.parametrize(
    "options, rate",
    [
        (("encoder=vit_tiny", "train.batch_size=256"), 1e-3),
        (("encoder=vit_tiny", "train.batch_size=1024"), 1e-3),
        (("encoder=vit_tiny", "train.batch_size=64"), 5e-4),  # sqrt(64 / 256) = 1 / 2
        (("encoder=swin_tiny", "train.batch_size=16"), 2.5e-4),
        (("encoder=convnext_tiny", "train.batch_size=32"), 3.5e-4),  # 3.54e-4
        (("encoder=vit_tiny", "train.batch_size=64", "optimizer.scale=linear"), 1e-3),  # which scales it later
        (("encoder=vit_tiny", "train.batch_size=64", "optimizer.lr=1e-3"), 1e-3),
        (("encoder=vit_tiny", "train.batch_size=64", "optimizer=sgd"), 0.06),
        (("encoder=resnet18", "train.batch_size=32"), 3e-3),  # chosen at batches of 32
        (("train.batch_size=32",), 1e-2),
    ],
)
def test_the_rate_of_a_transformer_falls_with_the_root_of_a_small_batch(options, rate):
    assert compose(*options).optimizer.node["lr"] == rate


def test_a_rate_that_fell_is_told_with_its_batch():
    plain = {
        "encoder": {"_target_": "sslcli.encoders.timm.Timm", "name": "vit_tiny_patch16_224"},
        "objective": {"_target_": "sslcli.objectives.infonce.InfoNCE"},
        "optimizer": {"_target_": "sslcli.training.optim.adamw", "lr": "auto"},
        "train": {"batch_size": 32},
    }
    assert settle(plain, None, lambda option: {}) == ["learning rate 0.00035 (vit, infonce, adamw, batch 32)"]
