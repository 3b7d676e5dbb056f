"""train.compile=true is the same training: the same gradients up to rounding, and the same bits every time.

Views are not compiled by it; where a user compiles them, they stay the same and are not compiled again in every step.
"""

import pytest
import torch
from support.helpers import TINY, make_trainer, randomness
from torch._dynamo.testing import CompileCounter

from sslcli.types import Field, Spec
from sslcli.views.image.pipeline import ImageViews

VIT = ("encoder=vit_micro", "encoder.depth=2")
CASES = {
    "convnet_small": (),
    "masked pixels": ("objective=simmim",),
    "a ViT": (*VIT, "encoder.patch_size=8"),
    "mask tokens of a ViT": ("objective=simmim", *VIT, "encoder.patch_size=8"),
    "visible tokens of a ViT": (
        *("objective=simmim", *VIT, "encoder.patch_size=4"),
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


@pytest.mark.slow
def test_compiled_views_are_the_same_and_are_compiled_once():
    spec = Spec(image=Field("image", (3, 16, 16), torch.uint8, mean=(0.5,) * 3, std=(0.2,) * 3))
    recipe = {"scale": (0.3, 1.0), "flip": 0.5, "jitter": 0.8, "brightness": 0.4, "hue": 0.1, "gray": 0.2, "blur": 0.5}
    eager, compiled = (ImageViews(spec, spec, 2, **recipe) for _ in range(2))
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled.compile(backend=counter)
    columns = {"image": torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8)}
    counts = []
    for step in range(8):
        random = randomness(16, step)
        for expected, found in zip(eager(columns, random), compiled(columns, random)):
            assert torch.equal(found.x, expected.x) and torch.equal(found.target, expected.target)
        counts.append(counter.frame_count)
    assert counts[0] > 0 and counts[3] == counts[-1]
