"""fp16 through an overflow of its scaler, on a CPU, where the commands refuse it as slow; the loop is the same."""

import pytest
import torch
from support.helpers import TINY, compose
from support.overflow import assert_overflows_and_goes_on

from sslcli.commands.build_trainer import make_trainer
from sslcli.components import build_components
from sslcli.run_dir.console import Console
from sslcli.types import Compute


@pytest.mark.parametrize("options", [(), ("objective=moco", "objective.queue=64")], ids=["infonce", "moco"])
def test_steps_that_overflow_are_skipped_and_the_run_goes_on(tmp_path, options):
    config = compose("device=cpu", *TINY, "train.steps=100", "log.every=1000", "encoder.width=4", *options)
    compute = Compute(torch.device("cpu"), torch.float16)
    trainer = make_trainer(config, build_components(config), compute, tmp_path, Console(silent=True))
    trainer.encoder.train()
    trainer.objective.train()
    assert_overflows_and_goes_on(trainer)
