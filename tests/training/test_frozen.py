"""``encoder.freeze_steps``: the first steps change no bit of the encoder, and train the heads as without it."""

import copy
from dataclasses import replace

import pytest
import torch
from support.helpers import TINY, compose, hook_of, trainer_of

from sslcli.components import build_components
from sslcli.config.choices import OptimizerChoice
from sslcli.errors import UserError
from sslcli.objectives.teacher import Teacher
from sslcli.run_dir import checkpoint
from sslcli.training.checkpoints import Checkpoints

OPTIMIZERS = {
    "adamw": {"_target_": "sslcli.training.optim.adamw"},
    "sgd": {"_target_": "sslcli.training.optim.sgd"},
    "lars": {"_target_": "sslcli.training.optim.lars", "trust_coeff": 1.0},
    "lookahead": {"_target_": "sslcli.training.optim.timm", "name": "lookahead_lion"},
}


def config_of(*, teacher=False, optimizer="adamw", layer_decay=1.0, freeze_steps=3, **train):
    """A small run; composing takes longer than its steps, so optimizer and lengths are put into what is composed."""
    objective = ("objective=moco", "objective.queue=32") if teacher else ()
    config = compose(*TINY, "device=cpu", "train.precision=fp32", "train.steps=8", "encoder.width=4",
                     "objective.width=8", "objective.hidden_dim=8", *objective)  # fmt: skip
    return replace(
        config,
        encoder=replace(config.encoder, freeze_steps=freeze_steps),
        optimizer=OptimizerChoice({"lr": 0.01, **OPTIMIZERS[optimizer]}, layer_decay=layer_decay),
        train=replace(config.train, **train),
    )


def copied(module):
    return copy.deepcopy(module.state_dict())


def equal(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(value, two[name]) for name, value in one.items())


def stepped(trainer, steps):
    batches = trainer.loader.batches(trainer.step)
    for _ in range(steps):
        trainer.train_step(next(batches))
    return trainer


CASES = [
    {},
    {"optimizer": "sgd", "accumulate": 2},
    {"optimizer": "lars", "teacher": True},
    {"optimizer": "lookahead", "teacher": True, "accumulate": 2},
    {"layer_decay": 0.5},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_frozen_means_that_no_bit_of_the_encoder_changes(tmp_path, case):
    trainer = trainer_of(config_of(**case), tmp_path)
    teachers = [module.encoder for module in trainer.objective.modules() if isinstance(module, Teacher)]
    encoders = [trainer.encoder, *teachers]
    assert len(encoders) == 1 + case.get("teacher", False)
    before, heads = [copied(encoder) for encoder in encoders], copied(trainer.objective)
    stepped(trainer, 3)
    assert all(equal(copied(encoder), then) for encoder, then in zip(encoders, before))  # BatchNorm's statistics, too
    trained = [name for name, p in trainer.objective.named_parameters() if p.requires_grad and p.ndim > 1]
    assert trained and not any(torch.equal(trainer.objective.state_dict()[name], heads[name]) for name in trained)
    stepped(trainer, 2)
    kernels = [name for name, p in trainer.encoder.named_parameters() if p.ndim > 1]
    for encoder, then in zip(encoders, before):
        assert not any(torch.equal(encoder.state_dict()[name], then[name]) for name in kernels)


def test_frozen_steps_train_the_heads_as_if_there_were_nothing_else(tmp_path):
    """The other way to freeze: an optimizer that knows the heads only."""
    frozen = stepped(trainer_of(config_of(), tmp_path), 3)
    config = config_of(freeze_steps=0)
    parts = build_components(config)
    parts.encoder.requires_grad_(False)
    assert equal(copied(frozen.objective), copied(stepped(trainer_of(config, tmp_path, parts=parts), 3).objective))


@pytest.mark.parametrize("at", [2, 5])
@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_a_run_resumes_in_the_same_bits_inside_the_frozen_steps_and_after_them(tmp_path, at, optimizer):
    config = config_of(teacher=True, optimizer=optimizer, freeze_steps=4, layer_decay=0.7)
    whole = stepped(trainer_of(config, tmp_path), 7)
    first = stepped(trainer_of(config, tmp_path), at)
    hook_of(first, Checkpoints).save(first)
    second = trainer_of(config, tmp_path)
    second.load_state_dict(checkpoint.load(checkpoint.steps(tmp_path)[0]))
    stepped(second, 7 - at)
    for one, two in zip(whole.modules, second.modules):
        assert equal(copied(one), copied(two))


def test_an_objective_without_weights_has_nothing_to_train(tmp_path):
    config = config_of()
    parts = build_components(config)
    parts.objective.requires_grad_(False)
    with pytest.raises(UserError, match="encoder.freeze_steps: InfoNCE has no weights of its own"):
        trainer_of(config, tmp_path, parts=parts)
