"""``optimizer.layer_decay``: timm's groups by depth, for every optimizer, and the lines that show the rates."""

import re
from dataclasses import replace

import pytest
import torch
from support.helpers import TINY, compose, trainer_of
from timm.optim import param_groups_layer_decay
from torch import nn

from sslcli.commands.summary import rates
from sslcli.config.choices import OptimizerChoice
from sslcli.encoders.depth import layer_numbers


def trainer_with(run_dir, layer_decay, *, target="adamw", options=("encoder.width=4",), **node):
    config = compose(*TINY, "device=cpu", "train.precision=fp32", "objective.width=8", "objective.hidden_dim=8",
                     "schedule=constant", *options)  # fmt: skip
    node = {"_target_": f"sslcli.training.optim.{target}", "lr": 0.01, **node}
    return trainer_of(replace(config, optimizer=OptimizerChoice(node, layer_decay=layer_decay)), run_dir)


class Whole(nn.Module):
    """Encoder and heads as timm expects them: a model that knows the layer of each parameter."""

    def __init__(self, encoder, heads):
        super().__init__()
        self.encoder, self.heads = encoder, heads

    def group_matcher(self, coarse=False):
        layers = {f"encoder.{name}": layer for name, layer in layer_numbers(self.encoder).items()}
        return lambda name: layers.get(name, max(layers.values()) + 1)


@pytest.mark.parametrize("options", [("encoder.width=4",), ("encoder=vit_tiny", "encoder.patch_size=8")])
def test_groups_and_the_first_step_are_those_of_timm(tmp_path, options):
    trainer = trainer_with(tmp_path, 0.6, options=options)
    whole = Whole(trainer.encoder, trainer.objective)
    groups = param_groups_layer_decay(whole, 0.05, layer_decay=0.6, no_weight_decay_list=("*token*", "*pos_embed*"))
    expected = {p: (0.01 * group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert trainer.lr == 0.01  # the rate that is logged is that of the heads
    found = {p: group for group in trainer.optimizer.param_groups for p in group["params"]}
    assert found.keys() == expected.keys()
    for p, (lr, decay) in expected.items():
        assert (found[p]["lr"], found[p]["weight_decay"]) == (pytest.approx(lr), decay)
    p = next(p for p, group in found.items() if group["layer"] == 0 and p.ndim > 1)
    before = p.detach().clone()
    trainer.train_step(next(trainer.loader.batches(0)))
    step = (p.detach() - before * (1 - expected[p][0] * 0.05)).abs() / expected[p][
        0
    ]  # Adam's first step is the rate itself
    assert step.max() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("target", ["sgd", "lars", "timm"])
def test_every_optimizer_has_the_rates_of_the_layers(tmp_path, target):
    trainer, plain = (trainer_with(tmp_path, decay, target=target) for decay in (0.5, 1.0))
    full = plain.optimizer.param_groups[0]["lr"]
    rates = {group["layer"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == {None: full, 2: full / 2, 1: full / 4, 0: full / 8}
    assert not any("layer" in group for group in plain.optimizer.param_groups)
    trainer.train_step(next(trainer.loader.batches(0)))
    trainer.train_step(next(trainer.loader.batches(1)))
    assert all(bool(torch.isfinite(p).all()) for p in trainer.encoder.parameters())


def test_start_lines_say_what_is_frozen_and_every_rate(run):
    tiny = ("debug=tiny", "train.steps=2", "probe=none", "log.report=false", "device=cpu", "encoder.width=4")
    _, out, _ = run(*tiny, "run_dir=a", "encoder.freeze_steps=1", "optimizer.layer_decay=0.5")
    assert "frozen    the encoder, in the first 1 steps: only the heads are trained in them\n" in out
    assert "rates     0.01 (heads), 0.005 (layer 2), 0.0025 (layer 1), 0.00125 (layer 0)\n" in out


def test_rates_without_layers_are_told_by_the_number_of_parameters(tmp_path):
    trainer = trainer_with(tmp_path, 1.0, target="lars", exempt_lr=0.5, scale="none")
    ((name, text),) = rates(trainer)
    assert name == "rates" and re.fullmatch(r"0\.01 \([\d,]+ parameters\), 0\.5 \([\d,]+ parameters\)", text)
    assert not list(rates(trainer_with(tmp_path, 1.0)))
