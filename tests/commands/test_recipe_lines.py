"""What a run says at a batch far below its recipe's."""

import pytest
from support.helpers import compose

from sslcli.commands.recipe_lines import recipe_lines
from sslcli.config.recipe import Recipe
from sslcli.training.optim import scaled_lr


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("simclr_imagenet", ["train.batch_size=64"], "learning rate 4.8 scaled to 0.075"),
        ("simmim_imagenet", ["train.batch_size=512"], "learning rate 0.0008 scaled to 0.0002"),
        ("moco_v2_imagenet", ["train.batch_size=64"], "learning rate 0.03 is not scaled; linear scaling gives 0.0075"),
        ("simclr_imagenet", ["train.batch_size=64", "optimizer.lr=0.1"], "learning rate 0.025, its own is 4.8"),
        ("simclr_imagenet", ["train.batch_size=64", "optimizer=adamw"], "learning rate 0.3, its own is 4.8"),
    ],
)
def test_the_rate_at_a_small_batch(name, changes, expected):
    config, recipe = compose(f"experiment={name}", *changes), compose(f"experiment={name}")
    node, batch, own = config.optimizer.node, config.train.batch_size, recipe.train.batch_size
    rate = scaled_lr(node["lr"], node["scale"], batch, node["base_batch"])
    first, second = recipe_lines(config, Recipe(name, recipe), batch, rate)
    assert first == f"batch {batch}, {name} has {own}: {expected}"
    assert second.endswith(f"train.batch_size={own} train.accumulate={own // batch}")


@pytest.mark.parametrize(("batch", "lines"), [(4096, 0), (1025, 0), (1024, 2), (8192, 0)])
def test_far_below_is_four_times(batch, lines):
    recipe = compose("experiment=simclr_imagenet")
    assert len(recipe_lines(recipe, Recipe("simclr_imagenet", recipe), batch, 1.0)) == lines
    assert recipe_lines(recipe, None, batch, 1.0) == []


def test_pieces_count_from_the_runs_own_and_are_left_out_where_they_do_not_divide():
    recipe = compose("experiment=moco_v2_imagenet")
    config = compose("experiment=moco_v2_imagenet")
    for batch, accumulate, way in ((64, 2, "train.accumulate=8"), (60, 1, "need not hold")):
        config.train.accumulate = accumulate
        assert recipe_lines(config, Recipe("moco", recipe), batch, 0.03)[1].endswith(way)


def test_the_command_says_it_and_writes_it(run, tmp_path):
    small = ("dataset=synthetic", "dataset.num_samples=40", "dataset.size=8", "encoder=mlp", "train.batch_size=16",
             "train.epochs=null", "train.steps=1", "probe=none", "log.report=false", "run_dir=r")  # fmt: skip
    code, out, err = run("experiment=simclr_cifar10", *small)
    assert code == 0, err
    line = "recipe batch 16, simclr_cifar10 has 512: learning rate 1 is not scaled; linear scaling gives 0.0312 "
    for text in (out, (tmp_path / "r" / "train.log").read_text()):  # which is wrapped to the width of a terminal
        assert line in " ".join(text.split())
