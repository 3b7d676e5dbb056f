"""``replay=STEP`` runs one step again: what in it is not finite, and which samples it is of. It writes nothing."""

import hashlib

import torch
from support.helpers import TINY, make_trainer

from sslcli.training.anatomy import examine

BAD = '''
import math
from sslcli.objectives.infonce import InfoNCE
from sslcli.types import Loss

class Bad(InfoNCE):
    """Its loss is infinite in the middle of a run."""

    def before_step(self, progress):
        super().before_step(progress)
        self.factor = math.inf if progress == 0.5 else 1.0

    def loss(self, outputs):
        loss = super().loss(outputs)
        return Loss(loss.total * (self.factor if self.training else 1.0), loss.parts, loss.chance)
'''


def tree(folder):
    return {path: hashlib.sha256(path.read_bytes()).digest() if path.is_file() else None for path in folder.rglob("*")}


def test_a_step_is_run_again_from_the_checkpoint_before_it(run, tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    plain = [option for option in TINY if not option.startswith("train.steps")]
    options = (*plain, "train.steps=8", "plugins=[bad]", "objective._target_=bad.Bad", "probe=none", "log.report=false")
    code, _, err = run(*options, "run_dir=r", "log.every=4", "checkpoint.every=3", "checkpoint.keep=5", "device=cpu")
    assert code == 0 and err == (
        "warning: In step 5 the loss was not finite (learning rate 0.00587), so it was left out. "
        "Where it began: ssl-train replay=5 run_dir=r\n"
    )
    (tmp_path / "r" / "checkpoints" / "step-00000006.pt").rename(
        tmp_path / "r" / "checkpoints" / "step-00000003.pt.other"
    )
    before = tree(tmp_path / "r")
    code, out, err = run("replay=5", "run_dir=r", "plugins=[bad]", "device=cpu")
    lines = out.splitlines()
    assert (code, err) == (0, "") and tree(tmp_path / "r") == before
    assert lines[0] == "step 5 of r, from step-00000003.pt"
    assert lines[1].split() == ["loss", "inf"] and any(line.startswith("gradient norm nan") for line in lines)
    samples = [int(line.split()[1]) for line in lines if line.startswith("sample ")]
    trainer = make_trainer(tmp_path, *plain, "train.steps=8")
    assert samples == trainer.loader.index(4).tolist()
    code, out, err = run("replay=2", "run_dir=r", "plugins=[bad]", "device=cpu")
    assert (
        code == 0 and out.startswith("step 2 of r, from its beginning\n") and "everything in this step is finite" in out
    )
    for words, told in ((("replay=9", "run_dir=r"), "has 8 steps"), (("replay=2", "run_dir=no"), "needs a run")):
        code, out, err = run(*words, "plugins=[bad]", "device=cpu")
        assert (code, out) == (2, "") and told in err and len(err.splitlines()) == 1


def test_the_first_tensor_and_the_sample_that_are_not_finite_are_named(tmp_path):
    trainer = make_trainer(tmp_path, *TINY, "dataset.num_samples=64", "encoder.norm=layer", "objective.norm=layer")
    trainer.encoder.train()
    (columns,) = next(trainer.loader.batches(0))
    image = columns["image"].float() / 255
    image[3, 0, 5, 5] = torch.nan
    found = examine(trainer, [{"image": image}])
    assert found.rows == [3] and list(found.columns) == ["image"]
    assert found.columns["image"].startswith("1 of ")
    assert next(iter(found.outputs)).startswith("encoder.") and len(found.gradients) > 1
    assert "returned nan values" in found.backward and not found.is_finite
    trainer.optimizer.zero_grad(set_to_none=True)
    assert examine(trainer, [columns]).is_finite
