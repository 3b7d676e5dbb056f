"""Whole recipes against the numbers in the papers and their official code, typed in here from there."""

from pathlib import Path

import pytest
from support.helpers import compose, make_trainer

from sslcli.cli import conf_dir
from sslcli.commands.checks import check_fit
from sslcli.components import build_components
from sslcli.config.composed import to_plain
from sslcli.training.schedule import Steps

# arXiv:2006.07733, table 6: what BYOL does to one view and to the other; its followers do the same
ASYMMETRIC = {"views.jitter": 0.8, "views.brightness": 0.4, "views.contrast": 0.4, "views.saturation": 0.2,
              "views.hue": 0.1, "views.gray": 0.2, "views.blur": 1.0, "views.second.blur": 0.1,
              "views.second.solarise": 0.2}  # fmt: skip
# config path -> value. The learning rate is that of the published batch, after the published scaling.
PUBLISHED = {
    # github.com/facebookresearch/vissl: configs/config/pretrain/simclr, simclr_8node_resnet, multicrop_2x160_4x96
    "simclr_multicrop_imagenet": {
        "objective.temperature": 0.1,
        "objective.width": 128,
        "objective.hidden_dim": 2048,
        "train.batch_size": 4096,
        "train.epochs": 100,
        "lr": 4.8,
        "schedule.warmup": 0.1,
        "optimizer.weight_decay": 1e-6,
        "dataset.size": 160,
        "views.num_local": 4,
        "views.local_size": 96 / 160,
        "views.local.scale": [0.05, 0.14],
        "views.scale": [0.08, 1.0],
        "views.jitter": 0.8,
        "views.brightness": 0.8,
        "views.gray": 0.2,
        "views.blur": 0.5,
    },
    # arXiv:2002.05709, sections 2.2 and B.6; B.9 for CIFAR-10
    "simclr_imagenet": {"objective.temperature": 0.1, "objective.width": 128, "objective.hidden_dim": 2048,
                        "train.batch_size": 4096, "train.epochs": 100, "optimizer.weight_decay": 1e-6, "lr": 4.8,
                        "schedule.warmup": 0.1, "views.scale": [0.08, 1.0], "views.jitter": 0.8, "views.hue": 0.2,
                        "views.brightness": 0.8, "views.gray": 0.2, "views.blur": 0.5},
    "simclr_cifar10": {"objective.temperature": 0.5, "views.blur": 0.0, "views.brightness": 0.4, "views.hue": 0.1,
                       "optimizer.weight_decay": 1e-6, "lr": 1.0},
    # github.com/facebookresearch/moco: main_moco.py, moco/builder.py
    "moco_v1_imagenet": {"objective.version": 1, "objective.temperature": 0.07, "objective.momentum": 0.999,
                         "objective.queue": 65536, "objective.width": 128, "objective.symmetric": False, "lr": 0.03,
                         "optimizer.momentum": 0.9, "optimizer.weight_decay": 1e-4, "train.batch_size": 256,
                         "train.epochs": 200, "schedule.milestones": [0.6, 0.8], "schedule.factor": 0.1,
                         "views.scale": [0.2, 1.0], "views.jitter": 1.0, "views.hue": 0.4, "views.brightness": 0.4,
                         "views.gray": 0.2, "views.blur": 0.0},
    "moco_v2_imagenet": {"objective.version": 2, "objective.temperature": 0.2, "objective.momentum": 0.999,
                         "objective.queue": 65536, "objective.hidden_dim": 2048,
                         "lr": 0.03, "optimizer.weight_decay": 1e-4, "train.epochs": 200,
                         "views.jitter": 0.8, "views.hue": 0.1, "views.blur": 0.5, "views.blur_sigma": [0.1, 2.0]},
    # colab/moco_cifar10_demo.ipynb
    "moco_cifar10": {"train.batch_size": 512, "lr": 0.06, "optimizer.weight_decay": 5e-4, "objective.queue": 4096,
                     "objective.momentum": 0.99, "objective.temperature": 0.1, "objective.bn_splits": 8,
                     "views.scale": [0.08, 1.0], "views.hue": 0.1, "views.blur": 0.0, "train.epochs": 200},
    # github.com/facebookresearch/moco-v3: CONFIG.md, main_moco.py
    "moco_v3_imagenet": {"objective.version": 3, "objective.temperature": 1.0, "objective.momentum": 0.99,
                         "objective.width": 256, "objective.hidden_dim": 4096, "objective.depth": 2, "lr": 9.6,
                         "optimizer.weight_decay": 1e-6, "optimizer.trust_coeff": 0.001, "train.batch_size": 4096,
                         "train.epochs": 100, "schedule.warmup": 0.1, "views.scale": [0.2, 1.0], **ASYMMETRIC},
    "moco_v3_vit_imagenet": {"objective.temperature": 0.2, "objective.depth": 3, "objective.freeze_patches": True,
                             "lr": 2.4e-3, "optimizer.weight_decay": 0.1, "train.batch_size": 4096,
                             "train.epochs": 300, "schedule.warmup": 40 / 300, "views.scale": [0.08, 1.0],
                             **ASYMMETRIC},
    # arXiv:2006.07733, section 3.3 and appendix B
    "byol_imagenet": {"objective.momentum": 0.996, "objective.hidden_dim": 4096, "objective.width": 256, "lr": 3.2,
                      "optimizer.weight_decay": 1.5e-6, "train.batch_size": 4096, "train.epochs": 1000, **ASYMMETRIC},
    # arXiv:2011.10566, section 3
    "simsiam_imagenet": {"objective.hidden_dim": 2048, "objective.width": 2048, "objective.depth": 3,
                         "objective.bottleneck": 512, "lr": 0.1, "optimizer.weight_decay": 1e-4,
                         "train.batch_size": 512, "train.epochs": 100, "views.scale": [0.2, 1.0], "views.blur": 0.5,
                         "views.saturation": 0.4, "views.hue": 0.1},
    # arXiv:2103.03230, section 2.2
    "barlow_twins_imagenet": {"objective.redundancy": 0.0051, "objective.hidden_dim": 8192, "objective.width": 8192,
                              "objective.depth": 3, "lr": 1.6, "optimizer.weight_decay": 1.5e-6,
                              "train.batch_size": 2048, "train.epochs": 1000, **ASYMMETRIC},
    # arXiv:2105.04906, section 4.2
    "vicreg_imagenet": {"objective.invariance": 25, "objective.variance": 25, "objective.covariance": 1,
                        "objective.hidden_dim": 8192, "objective.width": 8192, "lr": 1.6,
                        "optimizer.weight_decay": 1e-6, "train.batch_size": 2048, "train.epochs": 1000, **ASYMMETRIC},
    # github.com/microsoft/SimMIM: configs/swin_base__100ep
    "simmim_imagenet": {"dataset.size": 192, "objective.mask_patch": 32, "objective.mask_ratio": 0.6,
                        "objective.mask": "block", "objective.target": "none", "objective.error": "l1",
                        "lr": 8e-4, "optimizer.betas": [0.9, 0.999], "optimizer.weight_decay": 0.05,
                        "train.clip": 5.0, "train.batch_size": 2048, "train.epochs": 100, "schedule.warmup": 0.1,
                        "schedule.final": 0.05, "views.scale": [0.67, 1.0], "views.jitter": 0.0},
    # github.com/facebookresearch/mae: PRETRAIN.md
    "mae_imagenet": {"objective.mask_ratio": 0.75, "objective.visible_only": True, "objective.decoder_dim": 512,
                     "objective.decoder_depth": 8, "objective.target": "patch", "objective.error": "l2",
                     "lr": 2.4e-3, "optimizer.betas": [0.9, 0.95], "train.batch_size": 4096,
                     "train.epochs": 800, "schedule.warmup": 0.05, "views.scale": [0.2, 1.0]},
}  # fmt: skip
OWN = {path.stem for path in (Path(conf_dir()) / "experiment").glob("*.yaml")} - set(PUBLISHED)


def at(config, path):
    """The value at a path; an operation that the views' yaml leaves out is off."""
    *parents, last = path.split(".")
    for key in parents:
        config = config[key]
    return config.get(last, 0.0) if parents[:1] == ["views"] else config[last]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_has_the_published_values(name):
    config = to_plain(compose(f"experiment={name}"))
    scale = config["optimizer"]["scale"]
    ratio = config["train"]["batch_size"] / config["optimizer"]["base_batch"]
    config["lr"] = config["optimizer"]["lr"] * (ratio if scale == "linear" else 1)
    for path, value in PUBLISHED[name].items():
        assert at(config, path) == pytest.approx(value), path


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
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    assert all(f"experiment={name}" in text for name in OWN)


def test_steps_fall_at_their_milestones():
    schedule = Steps(milestones=(0.6, 0.8), factor=0.1, warmup=0.1)
    assert [schedule(p) for p in (0.05, 0.1, 0.59, 0.6, 0.79, 0.8, 1.0)] == pytest.approx(
        [0.5, 1, 1, 0.1, 0.1, 0.01, 0.01]
    )
