"""train.compile=true is the same training: the same gradients up to rounding, and the same bits every time."""

import pytest
import torch
from support.helpers import TINY, make_trainer

CASES = {
    "convnet_small": (),
    "masked pixels": ("objective=simmim",),
    "a ViT": ("encoder=vit_tiny", "encoder.patch_size=8"),
    "mask tokens of a ViT": ("objective=simmim", "encoder=vit_tiny", "encoder.patch_size=8"),
    "visible tokens of a ViT": (
        *("objective=simmim", "encoder=vit_tiny", "encoder.patch_size=4"),
        *("objective.visible_only=true", "objective.mask=random"),
    ),
}


def weights_after_two_steps(run_dir, *overrides):
    torch._dynamo.reset()
    trainer = make_trainer(run_dir, *TINY, "optimizer=sgd", "optimizer.lr=0.01", "train.precision=fp32", *overrides)
    trainer.encoder.train()
    trainer.objective.train()
    batches = trainer.loader.batches(0)
    for _ in range(2):
        trainer.train_step(next(batches))
    return trainer.encoder.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_compiled_encoder_learns_the_same_and_repeats(tmp_path, case):
    eager = weights_after_two_steps(tmp_path, *CASES[case])
    first, second = (weights_after_two_steps(tmp_path, *CASES[case], "train.compile=true") for _ in range(2))
    assert first.keys() == eager.keys()
    for name, value in eager.items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(first[name], second[name]), name
