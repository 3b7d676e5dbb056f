"""Objectives on texts: more padding changes neither the loss nor the gradient."""

from dataclasses import replace

import pytest
import torch
from support.helpers import trainer_of
from support.layouts import LAYER, OTHER_YAMLS, Case, config_of, data_of
from support.modalities import PAD
from torch.nn import functional as F

from sslcli.config.instantiate import allow

PAIRED = ("views=pairs",)
CASES = {
    **{name: options for name, options in OTHER_YAMLS.items() if data_of(name) == "texts"},
    "infonce": (LAYER,),
    "moco": ("objective=moco", "objective.queue=64", LAYER),
    "infomax": ("objective=infomax", LAYER),
    "pairs": (LAYER, *PAIRED),
}


@pytest.fixture(autouse=True)
def plugins():
    allow(["support"])
    yield
    allow([])


def made(case, tmp_path):
    config = config_of(Case(CASES[case], data="texts"))
    node = {**config.dataset.node, "room": 40, "pair": case == "pairs"}
    return trainer_of(replace(config, dataset=replace(config.dataset, node=node)), tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_a_batch_with_more_padding_has_the_same_loss_and_gradient(tmp_path, case):
    found = []
    for extra in (0, 32):
        trainer = made(case, tmp_path)
        ((batch),) = next(trainer.loader.batches(0))
        assert batch["text"].shape[1] == 32
        wide = {name: F.pad(column, (0, extra), value=PAD) for name, column in batch.items()}
        loss, _ = trainer.gradients([wide])
        parameters = [*trainer.encoder.parameters(), *trainer.objective.parameters()]
        found.append([loss.total.detach(), *(p.grad for p in parameters if p.grad is not None)])
    assert any(gradient.abs().max() > 1e-3 for gradient in found[0][1:])
    for narrow, wide in zip(*found):
        torch.testing.assert_close(narrow, wide, rtol=1e-5, atol=1e-6)
