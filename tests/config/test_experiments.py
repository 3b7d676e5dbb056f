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
from sslcli.training.schedule import Steps

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
