"""A step that is not finite changes nothing, whatever the objective, and the run goes on."""

import copy
import json
import math

import pytest
import torch
from support.helpers import TINY, compose, make_trainer
from support.layouts import YAMLS
from support.marks import rest_is_slow
from support.pretend_cuda import CUDA, on_cuda, pretend_cuda
from torch.optim import Optimizer

from sslcli.components import build_encoder, build_objective
from sslcli.config.instantiate import build
from sslcli.errors import UserError
from sslcli.training.nan_guard import LIMIT
from sslcli.training.optim import parameter_groups
from sslcli.training.strategy import Strategy
from sslcli.training.update import Update
from sslcli.types import Field, Loss, Spec

OBJECTIVES = sorted(YAMLS)
BAD, END = 6, 9  # the seventh step of nine
ONLY_COUNTED = ("step", "seconds", "hooks", "length")
OPTIONS = {"moco": ("objective.queue=64",)}


class Broken:
    """The loss of an objective, infinite in some steps."""

    def __init__(self, trainer, is_bad):
        self.trainer, self.is_bad, self.loss = trainer, is_bad, trainer.objective.loss

    def __call__(self, outputs):
        loss = self.loss(outputs)
        factor = math.inf if self.is_bad(self.trainer.step) else 1.0
        return Loss(loss.total * factor, loss.parts, loss.chance)


def broken(trainer, is_bad=lambda step: step == BAD):
    trainer.objective.loss = Broken(trainer, is_bad)
    trainer.encoder.train()
    trainer.objective.train()
    return trainer


def state_of(trainer):
    return copy.deepcopy({key: value for key, value in trainer.state_dict().items() if key not in ONLY_COUNTED})


def assert_equal(one, other, where=""):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_equal(value, other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}.{i}")
    else:
        assert one == other, where


def trainer_for(tmp_path, objective, *more):
    options = (*TINY, f"train.steps={END}", f"objective={objective}", "encoder.width=4", *OPTIONS.get(objective, ()))
    return make_trainer(tmp_path, *options, *more)


def assert_the_bad_step_changes_nothing(trainer, batches, *counters):
    """Train through the bad step; compare and return the states, without the rates, which follow the schedule."""
    for _ in range(BAD):
        trainer.train_step(next(batches))
    before = state_of(trainer)
    trainer.train_step(next(batches))
    after = state_of(trainer)
    for group in (*before["optimizer"]["param_groups"], *after["optimizer"]["param_groups"]):
        for name in ("lr", *counters):
            group.pop(name, None)
    assert_equal(before, after)
    return after


@pytest.mark.parametrize("on_device", [False, True], ids=["host reads", "found_inf"])
@pytest.mark.parametrize("objective", rest_is_slow(OBJECTIVES, "infonce", "moco", "byol"))
def test_a_step_that_is_not_finite_changes_nothing(tmp_path, objective, on_device):
    """As on a CPU, and as on a GPU, where the fused optimizer and torch.where decide: both can run on a CPU."""
    trainer = broken(trainer_for(tmp_path, objective))
    trainer._update.reads_on_device = on_device
    batches = trainer.loader.batches(0)
    after = assert_the_bad_step_changes_nothing(trainer, batches)
    trainer.train_step(next(batches))
    with pytest.raises(AssertionError):
        assert_equal(after, state_of(trainer))


@pytest.mark.parametrize("on_device", [False, True], ids=["host reads", "restored"])
@pytest.mark.parametrize("optimizer", ["sgd", "lars", "timm"])
def test_no_optimizer_is_changed(tmp_path, optimizer, on_device):
    trainer = broken(trainer_for(tmp_path, "infonce", f"optimizer={optimizer}"))
    trainer._update.reads_on_device = on_device
    assert_the_bad_step_changes_nothing(trainer, trainer.loader.batches(0), "step")  # timm counts beside the state


@pytest.mark.parametrize("objective", ["byol", "infonce", "moco"])
def test_reading_on_the_device_gives_the_same_bits(tmp_path, objective):
    states = []
    for on_device in (False, True):
        trainer = broken(trainer_for(tmp_path, objective))
        trainer._update.reads_on_device = on_device
        batches = trainer.loader.batches(0)
        for _ in range(END):
            trainer.train_step(next(batches))
        states.append(state_of(trainer))
    assert_equal(*states)


def test_a_run_goes_on_and_says_how_to_look_at_the_step(tmp_path, capsys):
    trainer = broken(trainer_for(tmp_path, "infonce", "log.every=3"))
    trainer.fit()
    said = capsys.readouterr().err
    assert f"In step {BAD + 1} the loss was not finite" in said
    assert f"ssl-train replay={BAD + 1} run_dir={tmp_path}" in said
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9]
    assert all(math.isfinite(line["loss"]) for line in lines)


def test_a_run_that_learns_nothing_any_more_ends(tmp_path):
    trainer = broken(trainer_for(tmp_path, "infonce", "train.steps=1000", "log.every=1"), lambda step: step >= 2)
    with pytest.raises(UserError, match="loss is not finite, and since step 3 no step has changed"):
        trainer.fit()
    assert trainer.step == 2 + LIMIT


def test_a_run_of_which_no_step_is_finite_ends_with_an_error(tmp_path):
    with pytest.raises(UserError, match="since step 1 no step has changed anything; there is no checkpoint"):
        broken(trainer_for(tmp_path, "infonce"), lambda step: True).fit()


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_no_update_waits_for_a_gpu(optimizer):
    """On the pretended CUDA device, where reading a number is an error."""
    config = compose(f"optimizer={optimizer}", "objective=byol", "encoder.width=4", *TINY)
    spec = Spec(image=Field("image", (3, 16, 16), torch.uint8))
    encoder = build_encoder(config, spec)
    objective = build_objective(config, encoder)
    with pretend_cuda() as device, device.watched():
        encoder, objective = on_cuda(encoder, objective)
        groups = parameter_groups([encoder, objective])
        made = build(config.optimizer.node, Optimizer, groups, 8, where="optimizer")
        parameters = [parameter for group in groups for parameter in group["params"]]
        for parameter in parameters:  # the state is there after the first step, which may wait
            parameter.grad = torch.empty_like(parameter)
        made.step()
        update = Update(encoder, objective, made, torch.amp.GradScaler("cuda", enabled=False), CUDA, 1.0, Strategy())
        update.begin()
        outcome = update(Loss(torch.empty((), device=CUDA, requires_grad=True), {}), {})
        assert update.reads_on_device and outcome.finite.device == CUDA and not device.blocking
