"""Whole recipes against docs/recipes.md, which has the numbers of the papers and of their official code."""

import re
from pathlib import Path

import pytest
import yaml
from support.helpers import compose, make_trainer

from sslcli.cli import conf_dir
from sslcli.commands.checks import check_fit
from sslcli.components import build_components
from sslcli.config.composed import to_plain
from sslcli.config.identity import flatten
from sslcli.config.instantiate import build
from sslcli.training.optim import scaled_lr
from sslcli.training.schedule import Schedule, Steps

ROOT = Path(__file__).parents[2]
FOLDER = Path(conf_dir()) / "experiment"
GROUPS = ("encoder", "objective", "views", "optimizer", "schedule", "dataset")
SECTIONS = (ROOT / "docs" / "recipes.md").read_text().split("\n## ")[1:]
# recipe -> key -> (value, source), as docs/recipes.md has them
PUBLISHED = {
    section.split("\n", 1)[0]: {
        key: (yaml.safe_load(value), source)
        for key, value, source in re.findall(r"^\| `(\S+)` \| (.*?) \| (.*) \|$", section, re.MULTILINE)
    }
    for section in SECTIONS
}
# recipe -> steps an epoch, and the rate at step 0, step 1, the end of the warm-up, half and the last step: the output
# of the official code where it is in PyTorch, for SimCLR, BYOL and VISSL of its formula (sources in docs/recipes.md)
RATES = {
    "simclr_imagenet": (312, 0, 0.0015384615, 4.8, 2.8167556, 1.5020583e-08),
    "simclr_cifar10": (97, 0, 0.0010309278, 1, 0.50994109, 4.201865e-10),
    "simclr_multicrop_imagenet": (312, 0.6, 0.60134615, 4.6825356, 2.4, 1.2166672e-08),
    "moco_v1_imagenet": (5004, 0.03, 0.03, 0.03, 0.03, 0.0003),
    "moco_v2_imagenet": (5004, 0.03, 0.03, 0.03, 0.015, 7.3904216e-14),
    "moco_cifar10": (97, 0.06, 0.06, 0.06, 0.03, 3.933576e-10),
    "moco_v3_imagenet": (312, 0, 0.0030769231, 9.6, 5.6335113, 3.0041166e-08),
    "moco_v3_vit_imagenet": (312, 0, 1.9230769e-07, 0.0024, 0.0014871788, 8.9990175e-13),
    "byol_imagenet": (312, 0, 0.001025641, 3.2, 1.6253855, 8.2757978e-11),
    "simsiam_imagenet": (2502, 0.1, 0.1, 0.1, 0.05, 3.9415304e-12),
    "barlow_twins_imagenet": (625, 0, 0.000256, 1.6, 0.81348008, 0.0016),
    "vicreg_imagenet": (625, 0, 0.000256, 1.6, 0.81348008, 0.0016),
    "simmim_imagenet": (625, 4e-06, 4.12736e-06, 0.00078140148, 0.00042, 4e-05),
    "mae_imagenet": (312, 0, 1.9230769e-07, 0.0024, 0.0012990952, 1.0532095e-13),
}
OWN = {path.stem for path in FOLDER.glob("*.yaml")} - set(PUBLISHED)


def at(config, path):
    """The value at a path; an operation that the views' yaml leaves out is off."""
    *parents, last = path.split(".")
    for key in parents:
        config = config[key]
    return config.get(last, 0.0) if parents[:1] == ["views"] else config[last]


def settings(name):
    """What the yaml of a recipe sets, and the one that it starts from: options of groups, and keys."""
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    given = {}
    for default in content.pop("defaults"):
        if isinstance(default, str):
            given |= settings(default)
        else:
            ((group, option),) = default.items()
            given[group.rpartition("/")[2]] = option
    return given | {key: value for key, value in flatten(content).items() if value is not None}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_value_of_a_published_recipe_has_a_source(name):
    composed = to_plain(compose(f"experiment={name}"))
    scale, lr = composed["optimizer"]["scale"], composed["optimizer"]["lr"]
    ratio = composed["train"]["batch_size"] / composed["optimizer"]["base_batch"]
    composed["lr"] = lr * (ratio if scale == "linear" else 1)
    given = {"optimizer": "adamw", "schedule": "cosine"} | settings(name)
    for key, (value, source) in PUBLISHED[name].items():
        found = given[key] if key in GROUPS else at(composed, key)
        wanted = number(value)
        assert source and (found == wanted or found == pytest.approx(wanted)), key
    assert given.keys() - {"dataset"} <= PUBLISHED[name].keys()


def test_every_published_recipe_has_its_rates():
    assert RATES.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", RATES)
def test_the_rate_of_a_recipe_at_five_steps(name):
    config = compose(f"experiment={name}")
    node, train = config.optimizer.node, config.train
    full = scaled_lr(node["lr"], node["scale"], train.batch_size, node["base_batch"])
    schedule = build(config.schedule.node, Schedule, where="schedule")
    steps = RATES[name][0] * train.epochs
    places = (0, 1, round(config.schedule.node["warmup"] * steps), steps // 2, steps - 1)
    found = [full * schedule(step / steps) for step in places]
    assert found == pytest.approx(RATES[name][1:], rel=1e-6)  # the last one of a cosine to 0 has lost seven digits


def number(value):
    """YAML reads 1e-06 as a text."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"[\d.]+e-\d+", value) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_trains(name, tmp_path):
    """With a smaller encoder and data that need no files; the objective, its heads narrowed, and views as they are."""
    encoder = "convnet_small" if "vit" not in name and "mim" not in name and "mae" not in name else "vit_tiny"
    objective = compose(f"experiment={name}").objective.node
    smaller = [f"objective.{key}=32" for key in ("hidden_dim", "width", "queue", "decoder_dim") if objective.get(key)]
    options = (f"experiment={name}", "dataset=synthetic", "dataset.size=64", "dataset.num_samples=100",
               f"encoder={encoder}", "train.batch_size=16", "train.epochs=null", "train.steps=1", *smaller)  # fmt: skip
    config = compose(*options)
    trainer = make_trainer(tmp_path, *options)
    check_fit(config, build_components(config), trainer.compute)
    trainer.fit()
    assert trainer.step == 1


def test_the_others_are_our_own_and_say_so_in_the_results():
    text = (ROOT / "docs" / "results.md").read_text()
    assert all(f"experiment={name}" in text for name in OWN)


def test_steps_fall_at_their_milestones():
    schedule = Steps(milestones=(0.6, 0.8), factor=0.1, warmup=0.1)
    assert [schedule(p) for p in (0.05, 0.1, 0.59, 0.6, 0.79, 0.8, 1.0)] == pytest.approx(
        [0.5, 1, 1, 0.1, 0.1, 0.01, 0.01]
    )
